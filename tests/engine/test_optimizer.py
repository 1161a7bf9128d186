from torch import nn

from qdformer.engine.optimizer import build_optimizer, parameter_groups
from tests.samples import small_config, small_model


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
    found, _ = groups_of(small_model())
    assert found["backbone.stem.conv1.weight"] == (0.5, 0.1)
    assert found["backbone.stem.conv1.norm.weight"] == (0.5, 0.0)
    assert found["audio_encoder.vggish.features.0.weight"] == (1.0, 0.1)
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
