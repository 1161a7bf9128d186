import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from qdformer.modeling.inference_fusion import fuse_for_inference
from tests.samples import make_clip, small_model


def trained(model):
    """Statistics and weights of normalizations as after a training, far from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for name in ("running_mean", "running_var", "weight", "bias"):
                values = torch.rand(module.running_mean.shape, generator=generator)
                getattr(module, name).data.copy_(values + 0.5)
    return model


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@torch.no_grad()
def test_folding_leaves_the_function_as_it_was(norm):
    model = trained(small_model("MODEL.RESNETS.NORM", norm)).eval()
    frames = torch.rand(2, 3, 64, 64)
    expected = model.backbone(frames)
    fuse_for_inference(model)
    assert not any(
        isinstance(m, Conv2d) and isinstance(m.norm, (nn.BatchNorm2d, FrozenBatchNorm2d))
        for m in model.modules()
    )
    for name, values in model.backbone.float()(frames).items():
        # The weights were rounded to 8 bits.
        torch.testing.assert_close(
            values, expected[name], rtol=0.1, atol=0.05 * expected[name].std()
        )


@torch.no_grad()
def test_predictions_are_near_those_in_full_precision():
    model = small_model("MODEL.QDFORMER.CLASS_THRESHOLD", 0.0).eval()
    clip = make_clip(frames=3)
    (expected,) = model([clip])
    (result,) = fuse_for_inference(model)([clip])
    assert (result["masks"] - expected["masks"]).abs().mean() < 0.02
    assert (result["sem_seg"] != expected["sem_seg"]).float().mean() < 0.1
    torch.testing.assert_close(result["scores"], expected["scores"], rtol=0.1, atol=0.01)
    assert {k: v.dtype for k, v in result.items()} == {k: v.dtype for k, v in expected.items()}


def test_nothing_is_left_to_train():
    model = fuse_for_inference(small_model())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
