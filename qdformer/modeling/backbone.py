"""Visual encoder, first half: timm's models as Detectron2 backbones; ResNet is Detectron2's."""

import contextlib
import copy
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, ResNet
from torch import Tensor, nn

from qdformer.errors import InputError
from qdformer.layers.activation_checkpointing import checkpoint_activations

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
"""Of the maps, by their names in Detectron2's ResNets."""

# Detectron2's ResNets name what leads to the maps at strides 4 and 8 so.
_RESNET_FINE = ("stem", "res2", "res3")


class TimmBackbone(Backbone):
    """A timm model with maps at strides 4, 8, 16 and 32, named as a ResNet's."""

    model: Any

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] = tuple(STRIDES),
        drop_path_rate: float = 0.0,
        pretrained: bool = False,
        freeze_norm: bool = False,
    ):
        """
        Args:
            name: timm's name of the architecture, e.g. "swin_tiny_patch4_window7_224".
            out_features: which of "res2" (stride 4) to "res5" (stride 32) to return.
            drop_path_rate: stochastic depth in training.
            pretrained: begin with timm's weights, which it downloads or finds in its cache.
            freeze_norm: keep batch normalization, weights and statistics, as it is.

        Raises:
            InputError: the model has no maps at these strides, takes frames of one size only, or
                its weights cannot be had.
        """
        super().__init__()
        strides = _create(name, "meta").feature_info.reduction()
        if unknown := set(out_features) - STRIDES.keys():
            raise InputError(
                f"MODEL.TIMM.OUT_FEATURES names {', '.join(sorted(unknown))}; allowed: "
                f"{', '.join(STRIDES)}"
            )
        if missing := set(STRIDES.values()) - set(strides):
            raise InputError(
                f"MODEL.TIMM.NAME {name} has maps at strides {strides} and none at "
                f"{sorted(missing)}; take a model with maps at 4, 8, 16 and 32"
            )
        self._out_features = [feature for feature in STRIDES if feature in out_features]
        # Of several maps at a stride the last one has seen the most. timm leaves out what comes
        # behind the last map that is asked for.
        indices = [
            max(i for i, stride in enumerate(strides) if stride == STRIDES[feature])
            for feature in self._out_features
        ]
        self.model = _create(
            name,
            out_indices=tuple(indices),
            drop_path_rate=drop_path_rate,
            pretrained=pretrained,
        )
        if freeze_norm:
            from timm.utils.model import freeze_batch_norm_2d

            self.model = freeze_batch_norm_2d(self.model)
        # timm's Swin returns (F, h, w, channels).
        self.channels_last = getattr(self.model, "output_fmt", None) == "NHWC"
        channels = self.model.feature_info.channels()
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        self._out_feature_strides = {feature: STRIDES[feature] for feature in self._out_features}
        self._size_divisibility = self._find_divisibility(name)

    def _find_divisibility(self, name: str) -> int:
        """What height and width must be multiples of, by trial on the meta device."""
        with torch.device("meta"):
            probe = copy.deepcopy(self).to("meta").eval()
            # Models that divide the coarsest map into windows need whole ones.
            for unit in (32, 7 * 32, 8 * 32):
                try:
                    maps = probe(torch.empty(1, 3, 2 * unit, 3 * unit))
                except (AssertionError, RuntimeError, ValueError) as error:
                    reason = " ".join(str(error).split())[:200]
                    continue
                sizes = {feature: tuple(map.shape[-2:]) for feature, map in maps.items()}
                if all(
                    size == (2 * unit // STRIDES[f], 3 * unit // STRIDES[f])
                    for f, size in sizes.items()
                ):
                    return unit
                reason = f"frames of {2 * unit} x {3 * unit} give maps of {sizes}"
        raise InputError(
            f"MODEL.TIMM.NAME {name} has no maps at strides 4, 8, 16 and 32 of frames of any size "
            f"({reason}); take another one"
        )

    def rename_weights(self, weights: Mapping[str, Value]) -> dict[str, Value]:
        """Names of timm's full model ("layers.0.") to those of its feature extractor here."""
        own = self.state_dict().keys()
        renamed = {}
        for name, value in weights.items():
            # timm puts the parts of a sequence side by side, or the model into another one.
            flat = "model." + re.sub(r"^(\w+)\.(\d+)", r"\1_\2", name)
            names = (flat, f"model.{name}", f"model.model.{name}")
            renamed[next((known for known in names if known in own), flat)] = value
        return renamed

    def fine_stages(self) -> list[nn.Module]:
        """What leads to the maps at strides 4 and 8, of models that run as a sequence of stages."""
        from timm.models import FeatureListNet

        model = self.model
        if not isinstance(model, FeatureListNet):
            return []
        last = model.feature_info.module_name()[list(STRIDES).index("res3")].replace(".", "_")
        names = list(model)
        # A single operation has little to keep, and some change their input in place.
        return [
            model[name] for name in names[: names.index(last) + 1] if list(model[name].children())
        ]

    @property
    def size_divisibility(self) -> int:
        """Height and width of frames must be multiples of it."""
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(F, 3, H, W) to one (F, channels, h, w) map a name."""
        maps = self.model(x)
        if self.channels_last:
            maps = [map.permute(0, 3, 1, 2) for map in maps]
        return dict(zip(self._out_features, maps, strict=True))


def _create(name: str, device: str | None = None, **options: Any) -> Any:
    """A feature extractor of timm, with what its architecture takes of the options."""
    # Nobody with another backbone waits for timm, which takes as long as a clip or two.
    import timm

    optional = {"strict_img_size": False, "drop_path_rate": options.pop("drop_path_rate", 0.0)}
    with torch.device(device) if device else contextlib.nullcontext():
        while True:
            try:
                return timm.create_model(name, features_only=True, **options, **optional)
            except TypeError as error:
                # The constructor names the first keyword that it does not know.
                refused = [key for key in optional if f"'{key}'" in str(error)]
                if not refused:
                    raise
                if optional.pop(refused[0]) and not device:
                    logger.warning("%s has no stochastic depth: DROP_PATH_RATE does nothing", name)
            except (OSError, RuntimeError) as error:
                if not options.get("pretrained"):
                    raise
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"MODEL.TIMM.PRETRAINED: the weights of {name} cannot be had ({reason}); go "
                    "online once, or name a file in MODEL.WEIGHTS"
                ) from error


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build ``MODEL.TIMM.NAME``."""
    return TimmBackbone(
        name=cfg.MODEL.TIMM.NAME,
        out_features=cfg.MODEL.TIMM.OUT_FEATURES,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
        freeze_norm=cfg.MODEL.TIMM.FREEZE_NORM,
    )


def checkpoint_fine_stages(backbone: Backbone) -> None:
    """Keep nothing for backward of what leads to the maps at strides 4 and 8.

    There the maps are largest and the multiplications fewest. Detectron2's ResNets and the timm
    models that run as a sequence of stages are known; of others a log line says that all is kept.
    """
    stages: list[nn.Module] = []
    if isinstance(backbone, ResNet):
        stages = [stage for name, stage in backbone.named_children() if name in _RESNET_FINE]
    elif isinstance(backbone, TimmBackbone):
        stages = backbone.fine_stages()
    if not stages:
        logger.info("%s keeps all activations for backward", type(backbone).__name__)
    for stage in stages:
        checkpoint_activations(stage)
