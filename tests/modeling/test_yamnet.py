import math

import pytest
import torch
from torch.nn import functional as F

from qdformer.audio.log_mel import log_mel, log_mel_examples
from qdformer.errors import InputError
from qdformer.modeling.audio_encoder import build_audio_encoder
from qdformer.modeling.yamnet import YAMNet
from tests.samples import small_config

# Layers of the released TensorFlow Lite file: name, channels in and out, stride.
POINTWISE = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


@pytest.fixture(scope="module")
def yamnet():
    torch.manual_seed(0)
    return YAMNet().eval()


def test_names_and_shapes_are_the_released_ones(yamnet):
    shapes = {"stem": (32, 1, 3, 3)}
    for number, (width, out) in enumerate(zip([32, *POINTWISE], POINTWISE)):
        shapes[f"blocks.{number}.depthwise"] = (width, 1, 3, 3)
        shapes[f"blocks.{number}.pointwise"] = (out, width, 1, 1)
    expected = {f"{name}.weight": shape for name, shape in shapes.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    assert {name: tuple(value.shape) for name, value in yamnet.state_dict().items()} == expected
    assert sum(value.numel() for value in yamnet.parameters()) == 3_729_481 - 521 * 1025


def test_features_are_those_of_the_layers_one_by_one(yamnet):
    """TensorFlow's SAME pads an even size with stride 2 at its end only; ReLU6 ends each layer."""
    torch.manual_seed(1)
    sound = torch.randn(2, 15600) * torch.tensor([[0.3], [0.001]])
    examples = torch.cat([log_mel(row) for row in sound])
    with torch.no_grad():
        features = torch.log(examples.exp() - 0.01 + 0.001)  # another offset under the logarithm
        state = yamnet.state_dict()

        def layer(name, features, stride=1, groups=1):
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            if weight.shape[-1] == 3:
                features = F.pad(features, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
            return F.conv2d(features, weight, bias, stride, groups=groups).clamp(0, 6)

        features = layer("stem", features, 2)
        for number, stride in enumerate(STRIDES):
            width = features.shape[1]
            features = layer(f"blocks.{number}.depthwise", features, stride, width)
            features = layer(f"blocks.{number}.pointwise", features)
        assert features.shape == (2, 1024, 3, 2)
        patches = yamnet.patches(examples)
        torch.testing.assert_close(patches, features.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(yamnet(examples), features.mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_silence_and_what_is_below_it_are_finite(yamnet):
    """Log-mel from elsewhere may be below the logarithm of our own offset."""
    silent = log_mel_examples(torch.zeros(15600), 1)
    assert silent.eq(math.log(0.01)).all() or silent.allclose(torch.tensor(math.log(0.01)))
    with torch.no_grad():
        torch.testing.assert_close(yamnet(silent - 5), yamnet(silent))


def test_a_normalization_is_refused():
    cfg = small_config("MODEL.AUDIO.NAME", "YAMNet", "MODEL.AUDIO.NORM", "BN")
    with pytest.raises(InputError, match="MODEL.AUDIO.NORM is 'BN'"):
        build_audio_encoder(cfg)
    cfg.MODEL.AUDIO.NORM = ""
    assert build_audio_encoder(cfg).network.out_channels == 1024
