"""Settings that cannot work, named in the config's own words before anything is built."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from fvcore.common.registry import Registry

from qdformer.data.dataset_mapper import MAPPER_REGISTRY
from qdformer.data.train_loader import SAMPLER_REGISTRY
from qdformer.errors import InputError, make_folder
from qdformer.modeling.audio_encoder import AUDIO_NETWORK_REGISTRY
from qdformer.modeling.codebook import UPDATE_RULES
from qdformer.modeling.criterion import PIXEL_LOSSES
from qdformer.solver.lr_scheduler import LR_SCHEDULER_REGISTRY

LEAST = {
    "MODEL.AUDIO.TRAINED_LAYERS": 0,
    "MODEL.QDFORMER.HIDDEN_DIM": 1,
    "MODEL.QDFORMER.NUM_HEADS": 1,
    "MODEL.QDFORMER.DIM_FEEDFORWARD": 1,
    "MODEL.QDFORMER.NUM_TOKENS": 1,
    "MODEL.QDFORMER.ENCODER.NUM_POINTS": 1,
    "MODEL.QDFORMER.ENCODER.TEMPORAL_WINDOW": 0,
    "MODEL.QDFORMER.CODEBOOK.NUM_CODES": 1,
    "INPUT.NUM_FRAMES": 1,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.KEEP_CHECKPOINTS": 0,
    "TEST.EVAL_PERIOD": 0,
    "TEST.NUM_SHEETS": 0,
    "TEST.WINDOW_OVERLAP": 0,
    "DATALOADER.NUM_WORKERS": 0,
}

# Numbers that may be negative; RANGES says how far.
SIGNED = ("DATALOADER.SINGLE_SOURCE",)

RANGES = {
    "MODEL.QDFORMER.CODEBOOK.DECAY": (0, 1),
    "MODEL.QDFORMER.CODEBOOK.FADE_IN": (0, 1),
    "MODEL.QDFORMER.LOSS.GLOBAL": (0, 1000),
    "MODEL.QDFORMER.MASK_THRESHOLD": (0, 1),
    "MODEL.QDFORMER.CLASS_THRESHOLD": (0, 1),
    "MODEL.TIMM.DROP_PATH_RATE": (0, 0.99),
    "INPUT.COLOR_JITTER": (0, 1),
    "DATALOADER.SINGLE_SOURCE": (-1, 1),
    # What a checkpoint from anywhere may ask of a machine.
    "MODEL.QDFORMER.DECODER_LAYERS": (1, 100),
    "MODEL.QDFORMER.ENCODER.LAYERS": (0, 100),
    "INPUT.MIN_SIZE_TEST": (0, 8192),
    "INPUT.MAX_SIZE_TEST": (1, 8192),
    "INPUT.SEPARATION.NUM_SOURCES": (1, 100),
    "TEST.WINDOW": (1, 1000),
    "INPUT.AUDIO_HOP": (0.01, 60),
    "INPUT.AUDIO_GAIN": (0, 100),
    # numpy's generators take no more.
    "SEED": (-1, 2**32 - 1),
    "SOLVER.BASE_LR": (0, 100),
}


# Keys of Detectron2 that nothing here reads.
UNREAD = (
    "INPUT.CROP.ENABLED",
    "INPUT.MASK_FORMAT",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "DATALOADER.REPEAT_THRESHOLD",
    "SOLVER.MOMENTUM",
    "SOLVER.NESTEROV",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.WEIGHT_DECAY_NORM",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "TEST.AUG.ENABLED",
    "TEST.DETECTIONS_PER_IMAGE",
    "TEST.EXPECTED_RESULTS",
    "MODEL.MASK_ON",
    "MODEL.KEYPOINT_ON",
    "MODEL.LOAD_PROPOSALS",
    "VIS_PERIOD",
)


def check_config(cfg: CfgNode) -> None:
    """Refuse settings that cannot work, or that nothing would come of.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    for key, least in LEAST.items():
        if value_of(cfg, key) < least:
            raise InputError(f"{key} is {value_of(cfg, key)}; it must be at least {least}")
    for key, (low, high) in RANGES.items():
        if not low <= value_of(cfg, key) <= high:
            raise InputError(f"{key} is {value_of(cfg, key)}; it must lie in {low} to {high}")
    defaults = get_cfg()
    _check_numbers(cfg, defaults)
    for key in UNREAD:
        if value_of(cfg, key) != value_of(defaults, key):
            raise InputError(
                f"{key} is {value_of(cfg, key)}, but nothing here reads it; leave it at "
                f"{value_of(defaults, key)}"
            )
    _check_choices(cfg)
    _check_widths(cfg)
    _check_pixels(cfg)
    model = cfg.MODEL.QDFORMER
    # Positions take 4 channels each, heads share the channels, GroupNorm has 32 groups.
    unit = math.lcm(4 * model.NUM_HEADS, 32 if cfg.MODEL.FPN.NORM == "GN" else 1)
    if model.HIDDEN_DIM % unit:
        raise InputError(
            f"MODEL.QDFORMER.HIDDEN_DIM is {model.HIDDEN_DIM}; with NUM_HEADS {model.NUM_HEADS} it "
            f"must be a multiple of {unit}"
        )
    if cfg.TEST.WINDOW_OVERLAP >= cfg.TEST.WINDOW:
        raise InputError(
            f"TEST.WINDOW_OVERLAP is {cfg.TEST.WINDOW_OVERLAP}; it must be below TEST.WINDOW, "
            f"{cfg.TEST.WINDOW}"
        )
    if cfg.SOLVER.KEEP_CHECKPOINTS == 1:
        raise InputError(
            "SOLVER.KEEP_CHECKPOINTS is 1; it must be 0, for all, or at least 2, since the one "
            "before is used where the last is damaged"
        )
    if not (model.QUANTIZATION or model.RECOMBINATION or not model.LOCAL_CALIBRATION):
        raise InputError(
            "MODEL.QDFORMER: LOCAL_CALIBRATION without QUANTIZATION and RECOMBINATION leaves the "
            "clip's tokens without use; switch one of them on, or LOCAL_CALIBRATION off"
        )


def _check_numbers(cfg: CfgNode, defaults: CfgNode) -> None:
    """One rule for every number, also those of Detectron2: finite, and negative only by default."""
    usual = dict(_numbers(defaults))
    for key, value in _numbers(cfg):
        if not math.isfinite(value) or (value < 0 <= usual.get(key, 0) and key not in SIGNED):
            raise InputError(f"{key} is {value}; it must be a finite number of at least 0")
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if not sizes or min(sizes) < 0:
        raise InputError(
            f"INPUT.MIN_SIZE_TRAIN is {sizes}; it must name at least one size in pixels, or 0 for "
            "none"
        )


def _numbers(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _numbers(value, f"{prefix}{name}.")
        elif type(value) in (int, float):
            yield f"{prefix}{name}", value


def check_device(name: str) -> torch.device:
    """The device of a name, if this machine has it.

    Raises:
        InputError: there is none of that name, or it cannot be used.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"MODEL.DEVICE is {name!r}, which cannot be used on this machine ({reason}); "
            "give cpu, as MODEL.DEVICE or --device"
        ) from error
    return device


def clips_per_process(cfg: CfgNode, processes: int) -> int:
    """The part of ``SOLVER.IMS_PER_BATCH`` that each of the processes trains on.

    Raises:
        InputError: the batch cannot be shared evenly.
    """
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; with {processes} processes it "
            f"must be a multiple of {processes}"
        )
    return cfg.SOLVER.IMS_PER_BATCH // processes


def check_gpus(count: int) -> None:
    """Refuse more GPUs than there are.

    Raises:
        InputError: names the flag, its value and what was found.
    """
    found = torch.cuda.device_count()
    if count > max(1, found):
        raise InputError(
            f"--num-gpus is {count}, but {found} GPUs are found; give at most that many"
        )


def check_machine(cfg: CfgNode, num_gpus: int) -> None:
    """Refuse what this machine does not have, and an ``OUTPUT_DIR`` that cannot be written.

    Raises:
        InputError: names the key or flag, its value and what to do.
    """
    device = check_device(cfg.MODEL.DEVICE)
    check_gpus(num_gpus)
    if cfg.SOLVER.AMP.ENABLED and device.type != "cuda":
        raise InputError(f"SOLVER.AMP.ENABLED needs a GPU; MODEL.DEVICE is {cfg.MODEL.DEVICE}")
    make_folder(cfg.OUTPUT_DIR, f"OUTPUT_DIR is {cfg.OUTPUT_DIR!r}, which")


def _check_widths(cfg: CfgNode) -> None:
    audio, levels = cfg.MODEL.AUDIO, list(cfg.MODEL.QDFORMER.ENCODER.IN_FEATURES)
    if len(audio.CONV_DIMS) != 4 or not audio.FC_DIMS or min(*audio.CONV_DIMS, *audio.FC_DIMS) < 1:
        raise InputError(
            f"MODEL.AUDIO: CONV_DIMS {audio.CONV_DIMS} must name 4 widths and FC_DIMS "
            f"{audio.FC_DIMS} at least one, all of them at least 1"
        )
    if audio.NORM == "GN" and any(width % 32 for width in audio.CONV_DIMS):
        raise InputError(
            f"MODEL.AUDIO.NORM is GN, which needs multiples of 32 in CONV_DIMS, {audio.CONV_DIMS}"
        )
    if audio.TRAINED_LAYERS and not audio.FREEZE:
        raise InputError(
            f"MODEL.AUDIO.TRAINED_LAYERS is {audio.TRAINED_LAYERS}, but FREEZE is False, by which "
            "all layers are trained; set one of them back"
        )
    if not levels or levels != ["res3", "res4", "res5"][: len(levels)]:
        raise InputError(
            f"MODEL.QDFORMER.ENCODER.IN_FEATURES is {levels}; it must name maps from res3 to res5, "
            "the finest first and none left out, since Detectron2's FPN needs strides that follow "
            "each other from res2"
        )
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH in (18, 34) and resnets.RES2_OUT_CHANNELS != 64:
        raise InputError(
            f"MODEL.RESNETS.RES2_OUT_CHANNELS is {resnets.RES2_OUT_CHANNELS}; with DEPTH "
            f"{resnets.DEPTH} it must be 64"
        )


def _check_pixels(cfg: CfgNode) -> None:
    for key in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"):
        values = value_of(cfg, key)
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in values)
        positive = numbers and (key == "MODEL.PIXEL_MEAN" or min(values, default=0) > 0)
        if len(values) != 3 or not positive:
            wanted = "numbers" if key == "MODEL.PIXEL_MEAN" else "numbers above 0"
            raise InputError(f"{key} is {values}; it must be three {wanted}, one a channel")


def _check_choices(cfg: CfgNode) -> None:
    choices = {
        "MODEL.META_ARCHITECTURE": _architectures(),
        "MODEL.BACKBONE.NAME": _names(BACKBONE_REGISTRY),
        "MODEL.AUDIO.NAME": _names(AUDIO_NETWORK_REGISTRY),
        "INPUT.MAPPER": _names(MAPPER_REGISTRY),
        "MODEL.QDFORMER.CODEBOOK.UPDATE": UPDATE_RULES,
        "MODEL.QDFORMER.LOSS.PIXEL": PIXEL_LOSSES,
        "INPUT.RANDOM_FLIP": ("none", "horizontal"),
        "INPUT.FORMAT": ("RGB", "BGR"),
        "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
        "SOLVER.LR_SCHEDULER_NAME": _names(LR_SCHEDULER_REGISTRY),
        "SOLVER.WARMUP_METHOD": ("constant", "linear"),
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
        "DATALOADER.SAMPLER_TRAIN": _names(SAMPLER_REGISTRY),
    }
    for key, allowed in choices.items():
        if value_of(cfg, key) not in allowed:
            names = ", ".join(str(name) or '""' for name in allowed)
            raise InputError(f"{key} is {value_of(cfg, key)!r}; allowed: {names}")
    for key in ("MODEL.FPN.NORM", "MODEL.RESNETS.NORM", "MODEL.AUDIO.NORM"):
        try:
            get_norm(value_of(cfg, key), 32)
        except KeyError as error:
            raise InputError(
                f"{key} is {value_of(cfg, key)!r}, which Detectron2's get_norm does not know; "
                'common ones are "", BN, SyncBN, FrozenBN and GN'
            ) from error
    if cfg.MODEL.BACKBONE.NAME == "build_timm_backbone":
        import timm  # see qdformer/modeling/backbone.py

        if not timm.is_model(name := cfg.MODEL.TIMM.NAME):
            raise InputError(
                f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not have"
            )


def _names(registry: Registry) -> list[str]:
    return [name for name, _ in registry]


def _architectures() -> list[str]:
    """All that are registered but Detectron2's own, which take images without sound."""
    return [
        name
        for name, architecture in META_ARCH_REGISTRY
        if not architecture.__module__.startswith("detectron2.")
    ]


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a key such as ``SOLVER.BASE_LR``."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg
