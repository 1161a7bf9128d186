"""Visual encoder, first half: timm's models as Detectron2 backbones; ResNet is Detectron2's."""

import re

import timm
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import Format
from torch import Tensor

from qdformer.errors import InputError
from qdformer.layers.recomputation import recompute

FEATURES = ("res2", "res3", "res4", "res5")

_FINE = (
    "stem",
    "patch_embed",
    *("res2", "layers_0", "stages_0"),
    *("res3", "layers_1", "stages_1"),
)
"""What leads to the maps at strides 4 and 8, by its names in Detectron2's and timm's models."""


class TimmBackbone(Backbone):
    """A hierarchical timm model with maps at strides 4, 8, 16 and 32, named as a ResNet's."""

    def __init__(self, *, name: str, out_features: list[str], drop_path_rate: float):
        """
        Args:
            name: timm's name of the architecture, e.g. "swin_tiny_patch4_window7_224".
            out_features: which of "res2" (stride 4) to "res5" (stride 32) to return.
            drop_path_rate: stochastic depth in training.
        """
        super().__init__()
        options = {"strict_img_size": False} if name.startswith("swin") else {}
        self.model = timm.create_model(
            name, features_only=True, pretrained=False, drop_path_rate=drop_path_rate, **options
        )
        strides = self.model.feature_info.reduction()
        if strides != [4, 8, 16, 32] or not set(out_features) <= set(FEATURES):
            raise InputError(
                f"MODEL.TIMM.NAME {name} has maps at strides {strides} and OUT_FEATURES asks for "
                f"{', '.join(out_features)}; needed are strides 4, 8, 16, 32, which are "
                f"{', '.join(FEATURES)}"
            )
        # timm's Swin returns (F, h, w, channels).
        self.channels_last = getattr(self.model, "output_fmt", None) == Format.NHWC
        self._out_features = list(out_features)
        channels = dict(zip(FEATURES, self.model.feature_info.channels(), strict=True))
        strides = dict(zip(FEATURES, strides, strict=True))
        self._out_feature_channels = {name: channels[name] for name in out_features}
        self._out_feature_strides = {name: strides[name] for name in out_features}

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm's full model ("layers.0.") to those of its feature extractor here."""
        return {
            "model." + re.sub(r"^(layers|stages)\.(\d+)", r"\1_\2", name): value
            for name, value in weights.items()
        }

    @property
    def size_divisibility(self) -> int:
        """Frames are padded to a multiple of the coarsest stride."""
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(F, 3, H, W) to one (F, channels, h, w) map a name."""
        maps = dict(zip(FEATURES, self.model(x), strict=True))
        outputs = {}
        for name in self._out_features:
            outputs[name] = maps[name]
            if self.channels_last:
                outputs[name] = maps[name].permute(0, 3, 1, 2)
        return outputs


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg, input_shape: ShapeSpec) -> TimmBackbone:
    """Build ``MODEL.TIMM.NAME``."""
    return TimmBackbone(
        name=cfg.MODEL.TIMM.NAME,
        out_features=cfg.MODEL.TIMM.OUT_FEATURES,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
    )


def recompute_fine(backbone: Backbone) -> None:
    """Keep nothing for backward of what leads to the maps at strides 4 and 8.

    There the maps are largest and the multiplications fewest.
    """
    stages = backbone.model if isinstance(backbone, TimmBackbone) else backbone
    for name, stage in stages.named_children():
        if name in _FINE:
            recompute(stage)
