"""Settings that cannot work, named in the config's own words before anything is built."""

import timm
import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from qdformer.errors import InputError
from qdformer.modeling.codebook import UPDATE_RULES
from qdformer.modeling.criterion import PIXEL_LOSSES

LEAST = {
    "MODEL.QDFORMER.HIDDEN_DIM": 1,
    "MODEL.QDFORMER.NUM_HEADS": 1,
    "MODEL.QDFORMER.DIM_FEEDFORWARD": 1,
    "MODEL.QDFORMER.NUM_TOKENS": 1,
    "MODEL.QDFORMER.DECODER_LAYERS": 1,
    "MODEL.QDFORMER.ENCODER.LAYERS": 0,
    "MODEL.QDFORMER.ENCODER.NUM_POINTS": 1,
    "MODEL.QDFORMER.ENCODER.TEMPORAL_WINDOW": 0,
    "MODEL.QDFORMER.CODEBOOK.NUM_CODES": 1,
    "INPUT.NUM_FRAMES": 1,
    "SOLVER.IMS_PER_BATCH": 1,
}


def check_config(cfg: CfgNode) -> None:
    """Refuse settings that cannot work.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    for key, least in LEAST.items():
        if _value(cfg, key) < least:
            raise InputError(f"{key} is {_value(cfg, key)}; it must be at least {least}")
    _check_choices(cfg)
    model = cfg.MODEL.QDFORMER
    # Positions take 4 channels each, heads share the channels, GroupNorm has 32 groups.
    unit = max(4 * model.NUM_HEADS, 32 if cfg.MODEL.FPN.NORM == "GN" else 1)
    if model.HIDDEN_DIM % unit or model.HIDDEN_DIM % model.NUM_HEADS:
        raise InputError(
            f"MODEL.QDFORMER.HIDDEN_DIM is {model.HIDDEN_DIM}; with NUM_HEADS {model.NUM_HEADS} it "
            f"must be a multiple of {unit}"
        )
    if not (model.QUANTIZATION or model.RECOMBINATION or not model.LOCAL_CALIBRATION):
        raise InputError(
            "MODEL.QDFORMER: LOCAL_CALIBRATION without QUANTIZATION and RECOMBINATION leaves the "
            "clip's tokens without use; switch one of them on, or LOCAL_CALIBRATION off"
        )
    if not len(cfg.MODEL.AUDIO.FC_DIMS) or len(cfg.MODEL.AUDIO.CONV_DIMS) != 4:
        raise InputError(
            f"MODEL.AUDIO: CONV_DIMS {cfg.MODEL.AUDIO.CONV_DIMS} must name 4 widths and FC_DIMS "
            f"{cfg.MODEL.AUDIO.FC_DIMS} at least one"
        )
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, but no GPU is found; add MODEL.DEVICE cpu"
        )


def _check_choices(cfg: CfgNode) -> None:
    choices = {
        "MODEL.META_ARCHITECTURE": [name for name, _ in META_ARCH_REGISTRY if "QDFormer" in name],
        "MODEL.BACKBONE.NAME": [name for name, _ in BACKBONE_REGISTRY],
        "MODEL.QDFORMER.CODEBOOK.UPDATE": UPDATE_RULES,
        "MODEL.QDFORMER.LOSS.PIXEL": PIXEL_LOSSES,
        "INPUT.RANDOM_FLIP": ("none", "horizontal"),
        "INPUT.FORMAT": ("RGB", "BGR"),
    }
    for key, allowed in choices.items():
        if _value(cfg, key) not in allowed:
            raise InputError(f"{key} is {_value(cfg, key)!r}; allowed: {', '.join(allowed)}")
    name = cfg.MODEL.TIMM.NAME
    if cfg.MODEL.BACKBONE.NAME == "build_timm_backbone" and not timm.is_model(name):
        raise InputError(
            f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not have"
        )


def _value(cfg: CfgNode, key: str):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg
