from dataclasses import replace

import pytest

from qdformer.errors import InputError

WRONG = [
    ("frames", 0, "^--frames is 0; it must be at least 1"),
    ("size", 16, "^--size is 16; it must be at least 32"),
    ("batch", 0, "^--batch is 0; it must be at least 1"),
    ("precision", "fp16", "^--precision is 'fp16'; allowed: fp32, bf16, fast"),
    ("device", "tpu", "MODEL.DEVICE is 'tpu', which cannot be used"),
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
