import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec

from qdformer.modeling.fpn import PixelFPN
from qdformer.modeling.visual_tokens import VisualTokens

SHAPES = {"res2": ShapeSpec(channels=6, stride=4), "res3": ShapeSpec(channels=8, stride=8),
          "res4": ShapeSpec(channels=8, stride=16)}  # fmt: skip


def make():
    torch.manual_seed(0)
    fpn = PixelFPN(shapes=SHAPES, channels=8, norm="")
    tokens = torch.rand(2, 16 + 4, 8)
    visual = VisualTokens(tokens, torch.zeros_like(tokens), [(4, 4), (2, 2)], None)
    return fpn, {"res2": torch.rand(2, 6, 8, 8), "res3": None, "res4": None}, visual


def test_top_down_path_written_out():
    module, features, visual = make()
    fpn = module.fpn
    fine, coarse = visual.maps()
    top = fpn.fpn_lateral4(coarse)
    middle = fpn.fpn_lateral3(fine) + F.interpolate(top, scale_factor=2, mode="nearest")
    bottom = fpn.fpn_lateral2(features["res2"])
    bottom = bottom + F.interpolate(middle, scale_factor=2, mode="nearest")
    torch.testing.assert_close(module(features, visual), fpn.fpn_output2(bottom))


def test_every_parameter_is_used():
    module, features, visual = make()
    module(features, visual).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert sum(1 for name, _ in module.named_parameters() if "output" in name) == 2
