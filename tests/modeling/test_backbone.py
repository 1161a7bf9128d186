import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.modeling.backbone import TimmBackbone, build_timm_backbone
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


@pytest.mark.parametrize("name", ["", *NAMES])
def test_the_fine_stages_are_computed_again_in_training(name):
    timm_backbone = ("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", name)
    model = small_model(*timm_backbone if name else ())
    stages = getattr(model.backbone, "model", model.backbone)
    again = [child for child, part in stages.named_children() if "forward" in vars(part)]
    assert len(again) == 3 and again[-1] in ("res3", "layers_1", "stages_1")
