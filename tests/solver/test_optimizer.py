import pytest
from detectron2.utils.events import EventStorage
from torch import nn

from qdformer.solver.optimizer import build_optimizer, parameter_groups
from tests.samples import make_clip, small_config, small_model


def groups_of(model):
    groups = parameter_groups(model, base_lr=1.0, backbone_multiplier=0.5, weight_decay=0.1)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }, sum(len(group["params"]) for group in groups)


def test_every_parameter_in_exactly_one_group():
    model = small_model()
    found, count = groups_of(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert count == len(found)


def test_rates_and_decay():
    found, _ = groups_of(small_model("MODEL.QDFORMER.CODEBOOK.UPDATE", "gradient"))
    assert found["backbone.stem.conv1.weight"] == (0.5, 0.1)
    assert found["backbone.stem.conv1.norm.weight"] == (0.5, 0.0)
    assert found["audio_encoder.network.features.0.weight"] == (1.0, 0.1)
    assert found["audio_encoder.projection.bias"] == (1.0, 0.0)
    for name in ("prototypes", "codebook.codewords", "encoder.level_embedding.weight"):
        assert found[name] == (1.0, 0.0)


def test_frozen_and_shared_parameters():
    model = nn.Module()
    model.first, model.second = nn.Linear(2, 2), nn.Linear(2, 2)
    model.second.weight = model.first.weight
    model.first.bias.requires_grad_(False)
    found, count = groups_of(model)
    assert count == 2 and "first.bias" not in found


def test_configs_values():
    cfg = small_config("SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.2)
    groups = build_optimizer(cfg, small_model()).param_groups
    assert {group["lr"] for group in groups} == {0.01, 0.005}
    assert {group["weight_decay"] for group in groups} == {0.2, 0.0}


@pytest.mark.parametrize("clip", [False, True])
def test_a_step_of_the_optimizer_is_one_of_the_codebook(clip):
    model = small_model().train()
    cfg = small_config("SOLVER.CLIP_GRADIENTS.ENABLED", clip)
    optimizer = build_optimizer(cfg, model)
    for _ in range(3):
        with EventStorage():
            sum(model([make_clip()]).values()).backward()
    assert int(model.codebook.steps) == 0
    optimizer.step()
    optimizer.step()  # nothing was quantized in between
    assert int(model.codebook.steps) == 1
