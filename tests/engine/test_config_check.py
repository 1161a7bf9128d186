from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from qdformer.engine.config_check import LEAST, RANGES, check_config, check_machine
from qdformer.engine.setup import load_config
from qdformer.errors import InputError
from tests.samples import small_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("[!B]*.yaml"))


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
    ("MODEL.META_ARCHITECTURE", "QDFormr", "'QDFormr'; allowed: QDFormer, QDFormerBaseline"),
    ("MODEL.QDFORMER.CODEBOOK.UPDATE", "sgd", "UPDATE is 'sgd'; allowed: gradient, ema"),
    ("MODEL.QDFORMER.LOSS.PIXEL", "l2", "PIXEL is 'l2'; allowed: bce, focal"),
    ("MODEL.AUDIO.FC_DIMS", [], r"FC_DIMS \[\] at least one"),
    ("INPUT.RANDOM_FLIP", "vertical", "'vertical'; allowed: none, horizontal"),
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
    for value in (RANGES[key][0] - 1, RANGES[key][1] + 1):
        with pytest.raises(InputError, match=f"{key} is .*; it must lie in"):
            check_config(small_config(key, float(value)))


@pytest.mark.parametrize("levels", [[], ["res2", "res3"], ["res5", "res4"], ["res4", "res4"]])
def test_levels_of_the_encoder(levels):
    with pytest.raises(InputError, match="IN_FEATURES is .*; it must name maps from res3 to res5"):
        check_config(small_config("MODEL.QDFORMER.ENCODER.IN_FEATURES", levels))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    output = ["OUTPUT_DIR", str(tmp_path)]
    check_machine(small_config(*output), 1)
    with pytest.raises(InputError, match="MODEL.DEVICE is cuda, but no GPU is found"):
        check_machine(small_config("MODEL.DEVICE", "cuda", *output), 1)
    with pytest.raises(InputError, match="--num-gpus is 2, but 0 GPUs are found"):
        check_machine(small_config(*output), 2)
    with pytest.raises(InputError, match="SOLVER.AMP.ENABLED needs a GPU"):
        check_machine(small_config("SOLVER.AMP.ENABLED", True, *output), 1)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="OUTPUT_DIR is .*file', which cannot be written"):
        check_machine(small_config("OUTPUT_DIR", str(tmp_path / "file")), 1)
