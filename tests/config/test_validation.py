import functools
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler

from qdformer.config.loading import load_config
from qdformer.config.validation import (
    LEAST,
    RANGES,
    check_config,
    check_machine,
    clips_per_process,
)
from qdformer.errors import InputError
from tests.samples import small_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("[!B]*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_can_be_built(path):
    """On the meta device: no memory, but every name has to be registered and every size to fit."""
    cfg = load_config(str(path), ["MODEL.DEVICE", "meta", "MODEL.QDFORMER.NUM_CLASSES", "70"])
    check_config(cfg)
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e6


@pytest.mark.parametrize("key", LEAST)
def test_numbers_that_are_too_small(key):
    with pytest.raises(InputError, match=f"{key} is {LEAST[key] - 1}; it must be at least"):
        check_config(small_config(key, LEAST[key] - 1))


WRONG = [
    ("MODEL.QDFORMER.HIDDEN_DIM", 48, "HIDDEN_DIM is 48; .* must be a multiple of 32"),
    ("MODEL.BACKBONE.NAME", "build_resnt", "NAME is 'build_resnt'; allowed: .*build_timm_backbone"),
    ("MODEL.META_ARCHITECTURE", "QDFormr", "'QDFormr'; allowed: .*QDFormer, TimeDomainBaseline"),
    ("MODEL.QDFORMER.CODEBOOK.UPDATE", "sgd", "UPDATE is 'sgd'; allowed: gradient, ema"),
    ("MODEL.QDFORMER.LOSS.PIXEL", "l2", "PIXEL is 'l2'; allowed: bce, focal"),
    ("MODEL.AUDIO.FC_DIMS", [], r"FC_DIMS \[\] at least one"),
    ("INPUT.RANDOM_FLIP", "vertical", "'vertical'; allowed: none, horizontal"),
    ("MODEL.FPN.NORM", "gn", r"FPN.NORM is 'gn', .* get_norm does not know"),
    ("MODEL.RESNETS.NORM", "LN", "RESNETS.NORM is 'LN', .* get_norm does not know"),
    ("MODEL.AUDIO.NAME", "Whisper", "AUDIO.NAME is 'Whisper'; allowed: .*VGGish"),
    ("MODEL.AUDIO.TRAINED_LAYERS", -1, "TRAINED_LAYERS is -1"),
    ("MODEL.AUDIO.NORM", "Bn", "AUDIO.NORM is 'Bn', .* get_norm does not know"),
    ("MODEL.AUDIO.NORM", "GN", "AUDIO.NORM is GN, which needs multiples of 32 in CONV_DIMS"),
    ("MODEL.RESNETS.DEPTH", 20, "DEPTH is 20; allowed: 18, 34, 50, 101, 152"),
    ("MODEL.RESNETS.DEPTH", 18, "RES2_OUT_CHANNELS is 16; with DEPTH 18 it must be 64"),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0], r"PIXEL_MEAN is \[1.0, 2.0\]; it must be three numbers, one"),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0, float("nan")], "PIXEL_MEAN is .*nan.; it must be three"),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0, "3"], "PIXEL_MEAN is .*'3'.; it must be three numbers, one"),
    ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "PIXEL_STD is .*; it must be three numbers above 0"),
    ("MODEL.PIXEL_STD", [], r"PIXEL_STD is \[\]; it must be three numbers above 0"),
    ("SOLVER.LR_SCHEDULER_NAME", "Cosine", "'Cosine'; allowed: WarmupMultiStepLR, WarmupCosineLR"),
    ("SOLVER.WARMUP_METHOD", "exp", "METHOD is 'exp'; allowed: constant, linear"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "l2", "CLIP_TYPE is 'l2'; allowed: value, norm"),
    ("SOLVER.KEEP_CHECKPOINTS", 1, "KEEP_CHECKPOINTS is 1; it must be 0, for all, or at least 2"),
    (
        "DATALOADER.SAMPLER_TRAIN",
        "RepeatFactorTrainingSampler",
        "allowed: TrainingSampler, RandomSubsetTrainingSampler$",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_values_that_cannot_work(key, value, message):
    with pytest.raises(InputError, match=message):
        check_config(small_config(key, value))


def test_a_name_that_timm_does_not_know():
    timm = ["MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "swin_tiny"]
    with pytest.raises(InputError, match="MODEL.TIMM.NAME is 'swin_tiny', which timm"):
        check_config(small_config(*timm))


def test_tokens_without_use():
    off = ["MODEL.QDFORMER.QUANTIZATION", False, "MODEL.QDFORMER.RECOMBINATION", False]
    with pytest.raises(InputError, match="leaves the clip's tokens without use"):
        check_config(small_config(*off))
    check_config(small_config(*off, "MODEL.QDFORMER.LOCAL_CALIBRATION", False))


@pytest.mark.parametrize("key", RANGES)
def test_numbers_outside_of_their_range(key):
    kind = type(functools.reduce(getattr, key.split("."), small_config()))
    for value in (RANGES[key][0] - 1, RANGES[key][1] + 1):
        with pytest.raises(InputError, match=f"{key} is .*; it must lie in"):
            check_config(small_config(key, kind(value)))


@pytest.mark.parametrize("norm", ["", "BN", "SyncBN", "FrozenBN", "GN", "naiveSyncBN"])
def test_every_norm_that_is_allowed_can_be_built(norm):
    cfg = small_config(
        *("MODEL.FPN.NORM", norm, "MODEL.RESNETS.NORM", norm, "MODEL.AUDIO.NORM", norm),
        *("MODEL.AUDIO.CONV_DIMS", [32] * 4, "MODEL.RESNETS.STEM_OUT_CHANNELS", 32),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 32),
    )
    check_config(cfg)
    build_model(cfg)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_depth_that_is_allowed_can_be_built(depth):
    channels = 64 if depth < 50 else 256
    resnet = ["MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.RES2_OUT_CHANNELS", channels]
    cfg = small_config("MODEL.DEVICE", "meta", *resnet)
    check_config(cfg)
    with torch.device("meta"):
        build_model(cfg)


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR"])
def test_every_scheduler_that_is_allowed_can_be_built(name):
    cfg = small_config("SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.KEEP_CHECKPOINTS", 0)
    check_config(cfg)
    build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=1))


@pytest.mark.parametrize(
    "levels",
    [
        *([], ["res2", "res3"], ["res5", "res4"], ["res4", "res4"], ["res3", "res5"]),
        *(["res4", "res5"], ["res5"], ["res6"], ["res3", "res4", "res5", "res6"]),
    ],
)
def test_levels_of_the_encoder(levels):
    with pytest.raises(InputError, match="IN_FEATURES is .*; it must name maps from res3 to res5"):
        check_config(small_config("MODEL.QDFORMER.ENCODER.IN_FEATURES", levels))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    output = ["OUTPUT_DIR", str(tmp_path)]
    check_machine(small_config(*output), 1)
    for device in ("cuda", "mps", "gpu", "cuda:x"):
        with pytest.raises(InputError, match=f"MODEL.DEVICE is '{device}'"):
            check_machine(small_config("MODEL.DEVICE", device, *output), 1)
    with pytest.raises(InputError, match="--num-gpus is 2, but 0 GPUs are found"):
        check_machine(small_config(*output), 2)
    with pytest.raises(InputError, match="SOLVER.AMP.ENABLED needs a GPU"):
        check_machine(small_config("SOLVER.AMP.ENABLED", True, *output), 1)


@pytest.mark.parametrize(("clips", "processes"), [(4, 3), (4, 8), (1, 2)])
def test_a_batch_that_the_processes_cannot_share(clips, processes):
    cfg = small_config("SOLVER.IMS_PER_BATCH", clips)
    with pytest.raises(InputError, match=f"SOLVER.IMS_PER_BATCH is {clips}; .* {processes}"):
        clips_per_process(cfg, processes)
    assert clips_per_process(cfg, 1) == clips


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.CROP.ENABLED", True), ("INPUT.MASK_FORMAT", "bitmask"), ("TEST.AUG.ENABLED", True),
        ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5, 0.2]]), ("SOLVER.MOMENTUM", 0.5),
        ("SOLVER.NESTEROV", True), ("SOLVER.BIAS_LR_FACTOR", 2.0),
        ("SOLVER.WEIGHT_DECAY_NORM", 0.1), ("SOLVER.WEIGHT_DECAY_BIAS", 0.1),
        ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False), ("VIS_PERIOD", 20),
    ],
)  # fmt: skip
def test_keys_that_nothing_reads_are_refused(key, value):
    with pytest.raises(InputError, match=f"{key} is .*; leave it at"):
        check_config(small_config(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1.0), ("SOLVER.WEIGHT_DECAY", -5.0),
        ("SOLVER.WARMUP_ITERS", -5), ("SOLVER.GAMMA", float("nan")),
        ("MODEL.QDFORMER.LOSS.CLASS", float("inf")), ("MODEL.QDFORMER.LOSS.QUANT", -1.0),
        ("INPUT.MIN_SIZE_TRAIN", ()), ("INPUT.MAX_SIZE_TRAIN", 0), ("INPUT.AUDIO_GAIN", 1e300),
        ("SEED", 12345678901234567890),
    ],
)  # fmt: skip
def test_numbers_that_no_training_can_use(key, value):
    with pytest.raises(InputError, match=f"{key} is "):
        check_config(small_config(key, value))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="OUTPUT_DIR is .*file', which cannot be written"):
        check_machine(small_config("OUTPUT_DIR", str(tmp_path / "file")), 1)


def test_layers_that_are_trained_of_what_is_not_frozen_are_refused():
    cfg = small_config("MODEL.AUDIO.FREEZE", False, "MODEL.AUDIO.TRAINED_LAYERS", 2)
    with pytest.raises(InputError, match="TRAINED_LAYERS is 2, but FREEZE is False"):
        check_config(cfg)
