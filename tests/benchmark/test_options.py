from dataclasses import replace

import pytest
import torch

from qdformer.benchmark.options import ROOT, BenchmarkOptions
from qdformer.errors import InputError

WRONG = [
    ("frames", 0, "^--frames is 0; it must be at least 1"),
    ("size", 16, "^--size is 16; it must be at least 32"),
    ("batch", 0, "^--batch is 0; it must be at least 1"),
    ("precision", "fp16", "^--precision is 'fp16'; allowed: fp32, bf16, fast"),
    ("device", "tpu", "^--device is 'tpu'; allowed: cpu, cuda"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_workload_that_cannot_be(options, name, value, message):
    with pytest.raises(InputError, match=message):
        replace(options, workload=replace(options.workload, **{name: value})).check()


def test_other_numbers_that_cannot_be(options):
    options.check()
    with pytest.raises(InputError, match="^--repeats is 0"):
        replace(options, repeats=0).check()
    with pytest.raises(InputError, match="^--growth-sizes is 8; it must be at least 32"):
        replace(options, growth_sizes=(64, 8)).check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(options):
    workload = replace(options.workload, device="cuda")
    with pytest.raises(InputError, match="^--device is cuda, but no GPU is found; give --device"):
        replace(options, workload=workload).check()


def test_the_config_runs_on_the_device_and_has_classes(options):
    overrides = ("MODEL.QDFORMER.NUM_CLASSES", "0", "MODEL.DEVICE", "cuda")
    cfg = replace(options, overrides=overrides).load_config()
    assert cfg.MODEL.QDFORMER.NUM_CLASSES == 70
    assert cfg.MODEL.DEVICE == "cpu"
    assert options.load_config().MODEL.QDFORMER.NUM_CLASSES == 4


def test_untrained_tokens_count_as_confident_unless_the_user_says_otherwise(options):
    assert options.load_config().MODEL.QDFORMER.CLASS_THRESHOLD == 0
    key = "MODEL.QDFORMER.CLASS_THRESHOLD"
    assert replace(options, overrides=(key, "0.3")).load_config().MODEL.QDFORMER[
        "CLASS_THRESHOLD"
    ] == pytest.approx(0.3)


def test_configs_that_cannot_be_used(options):
    with pytest.raises(InputError, match="nowhere.yaml: no such config file"):
        replace(options, config_file="nowhere.yaml").load_config()
    with pytest.raises(InputError, match="Non-existent key: MODEL.FAST"):
        replace(options, overrides=("MODEL.FAST", "True")).load_config()
    with pytest.raises(InputError, match="NUM_TOKENS is 0; it must be at least 1"):
        replace(options, overrides=("MODEL.QDFORMER.NUM_TOKENS", "0")).load_config()


def test_settings_say_what_a_result_depends_on(options):
    config_file = str(ROOT / "configs" / "a.yaml")
    assert BenchmarkOptions(config_file, options.output, ()).settings() == {
        "config": "configs/a.yaml",
        "overrides": [],
        "device": "cpu",
        "frames": 5,
        "size": 224,
        "batch": 1,
        "precision": "fp32",
        "repeats": 10,
    }
