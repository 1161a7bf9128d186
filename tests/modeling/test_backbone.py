import copy
import logging

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.errors import InputError
from qdformer.modeling.backbone import (
    TimmBackbone,
    build_timm_backbone,
    checkpoint_fine_stages,
)
from tests.samples import small_config, small_model

NAMES = ["swin_tiny_patch4_window7_224", "pvt_v2_b0"]
FEATURES = ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_timm_channels_first(name):
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, out_features=FEATURES, drop_path_rate=0.0).eval()
    frames = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps, reference = backbone(frames), backbone.model(frames)
    shapes = backbone.output_shape()
    for stride, feature, expected in zip((4, 8, 16, 32), FEATURES, reference):
        assert shapes[feature].stride == stride
        assert maps[feature].shape == (1, shapes[feature].channels, 64 // stride, 96 // stride)
        if expected.shape != maps[feature].shape:
            expected = expected.permute(0, 3, 1, 2)
        assert torch.equal(maps[feature], expected)


def test_swin_at_its_own_size_is_timms_classifier_trunk():
    """Our features at stride 32, normalized, are what timm's full model computes."""
    torch.manual_seed(0)
    backbone = TimmBackbone(name=NAMES[0], out_features=["res5"], drop_path_rate=0.0).eval()
    full = timm.create_model(NAMES[0], pretrained=False).eval()
    renamed = {key.replace("layers.", "layers_"): value for key, value in full.state_dict().items()}
    backbone.model.load_state_dict(renamed, strict=False)
    frames = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        ours = full.norm(backbone(frames)["res5"].permute(0, 2, 3, 1))
        torch.testing.assert_close(ours, full.forward_features(frames), atol=1e-4, rtol=1e-4)


def test_layout_is_not_guessed_from_sizes():
    """A map as high as it has channels: 96 of them at stride 4 of 384 rows."""
    backbone = TimmBackbone(name=NAMES[0], out_features=["res2"], drop_path_rate=0.0).eval()
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 384, 64))["res2"].shape == (1, 96, 96, 16)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_timms_full_model_start_a_backbone(name, tmp_path):
    torch.manual_seed(0)
    full = timm.create_model(name, pretrained=False)
    torch.save(full.state_dict(), tmp_path / "timm.pth")
    model = nn.Module()
    model.backbone = TimmBackbone(name=name, out_features=FEATURES, drop_path_rate=0.0)
    AVSCheckpointer(model).load(str(tmp_path / "timm.pth"))
    expected = model.backbone.rename_weights(full.state_dict())
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_only_what_is_asked_for():
    cfg = small_config("MODEL.TIMM.NAME", "pvt_v2_b0", "MODEL.TIMM.OUT_FEATURES", ["res3", "res5"])
    backbone = build_timm_backbone(cfg, ShapeSpec(channels=3))
    assert list(backbone(torch.rand(1, 3, 32, 32))) == ["res3", "res5"]
    assert backbone.size_divisibility == 32


FAMILIES = {
    "resnet18": 32, "tf_efficientnet_lite0": 32, "mobilenetv3_small_050": 32, "ghostnet_050": 32,
    "hrnet_w18_small": 32, "convnext_atto": 32, "regnetx_002": 32, "mvitv2_tiny": 32,
    "densenet121": 32, "cspdarknet53": 32, "maxvit_rmlp_pico_rw_256": 256,
}  # fmt: skip
"""timm's models with maps at five strides, of FeatureListNet and of other kinds; what height and
width must be multiples of.
"""


@pytest.mark.parametrize(("name", "unit"), FAMILIES.items())
def test_any_timm_model_with_maps_at_these_strides(name, unit):
    with torch.device("meta"):
        backbone = TimmBackbone(name=name, drop_path_rate=0.1).eval()
        maps = backbone(torch.empty(1, 3, unit, 2 * unit))
    assert backbone.size_divisibility == unit
    shapes = backbone.output_shape()
    assert {f: tuple(map.shape[1:]) for f, map in maps.items()} == {
        f: (shapes[f].channels, unit // s, 2 * unit // s) for f, s in zip(FEATURES, (4, 8, 16, 32))
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", r"maps at strides \[16, 16, 16\] and none at \[4, 8, 32\]"),
        ("hiera_tiny_224", "frames of any size"),
        ("inception_v3", "give maps of"),
    ],
)
def test_models_that_cannot_be_are_refused_with_the_reason(name, reason):
    with pytest.raises(InputError, match=f"MODEL.TIMM.NAME {name} .*{reason}"):
        TimmBackbone(name=name)


def test_pretrained_weights_that_cannot_be_had(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match="PRETRAINED: the weights of resnet18 .*no network"):
        TimmBackbone(name="resnet18", pretrained=True)


def test_batch_normalization_can_be_frozen():
    backbone = TimmBackbone(name="resnet18", freeze_norm=True).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    sum(map.sum() for map in backbone(torch.rand(2, 3, 64, 64)).values()).backward()
    norms = [name for name in before if "bn" in name]
    assert norms and all(torch.equal(backbone.state_dict()[name], before[name]) for name in norms)
    assert not any("bn" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("", ["stem", "res2", "res3"]),
        ("swin_tiny_patch4_window7_224", ["patch_embed", "layers_0", "layers_1"]),
        ("pvt_v2_b0", ["patch_embed", "stages_0", "stages_1"]),
        ("resnet18", ["layer1", "layer2"]),
    ],
)
def test_the_fine_stages_are_computed_again_in_training(name, again):
    timm_backbone = ("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", name)
    given = timm_backbone if name else ()
    for checkpointed in (True, False):
        model = small_model(*given, "MODEL.QDFORMER.CHECKPOINT_ACTIVATIONS", checkpointed)
        stages = getattr(model.backbone, "model", model.backbone)
        found = [child for child, part in stages.named_children() if "forward" in vars(part)]
        assert found == (again if checkpointed else [])


def test_a_backbone_that_keeps_everything_says_so(caplog):
    with caplog.at_level(logging.INFO), torch.device("meta"):
        checkpoint_fine_stages(TimmBackbone(name="tf_efficientnet_lite0"))
    assert "TimmBackbone keeps all activations" in caplog.text


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "regnetx_002"])
def test_gradients_are_those_without_computing_again(name):
    torch.manual_seed(0)
    plain = TimmBackbone(name=name)
    again = copy.deepcopy(plain)
    checkpoint_fine_stages(again)
    frames = torch.rand(2, 3, 32, 64)
    for backbone in (plain, again):
        sum(map.square().mean() for map in backbone.train()(frames).values()).backward()
    for (key, first), second in zip(plain.named_parameters(), again.parameters()):
        assert torch.equal(first.grad, second.grad), key
    for (key, first), second in zip(plain.named_buffers(), again.buffers()):
        assert torch.equal(first, second), key
