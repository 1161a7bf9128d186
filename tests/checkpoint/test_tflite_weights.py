"""A TensorFlow Lite model of known integers and scales."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qdformer.checkpoint.conversion import convert_weights
from qdformer.errors import InputError
from qdformer.modeling.yamnet import YAMNet

tflite = pytest.importorskip("tflite")


def write_tflite(path, *arguments):
    """Only where the optional package is."""
    from tests.checkpoint.tflite_model import write_tflite as write

    write(path, *arguments)


def quantized_layer(rng, depthwise, weight):
    """What TFLite would store of a layer whose weight has this shape in PyTorch."""
    channels, inputs, *kernel = weight.shape
    return (
        depthwise,
        rng.integers(
            -127, 128, (1, *kernel, channels) if depthwise else (channels, *kernel, inputs), np.int8
        ),
        rng.uniform(0.001, 0.01, channels).astype(np.float32),
        rng.integers(-1000, 1000, channels, np.int32),
        rng.uniform(0.001, 0.01, channels).astype(np.float32),
    )


@pytest.fixture
def layers():
    """Of YAMNet, in the order in which it computes them."""
    rng = np.random.default_rng(1)
    return {
        name: quantized_layer(rng, name.endswith("depthwise"), layer.weight)
        for name, layer in YAMNet().named_modules()
        if isinstance(layer, nn.Conv2d)
    }


def test_integers_and_scales_become_yamnets_weights(tmp_path, layers):
    write_tflite(tmp_path / "yamnet.tflite", layers.values())
    converted = convert_weights(str(tmp_path / "yamnet.tflite"))
    assert converted.release.model == "yamnet" and not converted.unused and not converted.filled
    YAMNet().load_state_dict(converted.weights)
    for name, (depthwise, weight, scales, bias, bias_scales) in layers.items():
        values = weight * (scales if depthwise else scales[:, None, None, None])
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        torch.testing.assert_close(
            converted.weights[f"{name}.weight"].numpy(), values.transpose(order).astype(np.float32)
        )
        torch.testing.assert_close(
            converted.weights[f"{name}.bias"].numpy(), (bias * bias_scales).astype(np.float32)
        )


def test_axes_are_those_of_a_convolution(tmp_path, layers):
    """Against the definition of TFLite's depthwise convolution, written as a loop."""
    write_tflite(tmp_path / "yamnet.tflite", layers.values())
    weights = convert_weights(str(tmp_path / "yamnet.tflite")).weights
    _, weight, scales, _, _ = layers["blocks.0.depthwise"]
    patch = np.random.default_rng(2).normal(size=(3, 3, 32)).astype(np.float32)  # H, W, C
    expected = [
        sum(patch[i, j, c] * weight[0, i, j, c] * scales[c] for i in range(3) for j in range(3))
        for c in range(32)
    ]
    found = F.conv2d(
        torch.from_numpy(patch).permute(2, 0, 1)[None],
        weights["blocks.0.depthwise.weight"],
        groups=32,
    )
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["NONE", "RELU"])
def test_another_activation_is_refused(tmp_path, layers, activation):
    path = tmp_path / "keras.tflite"
    write_tflite(path, layers.values(), getattr(tflite.ActivationFunctionType, activation))
    with pytest.raises(InputError, match="ReLU6"):
        convert_weights(str(path))


def test_damaged_files_are_refused(tmp_path, layers):
    path = tmp_path / "yamnet.tflite"
    write_tflite(path, layers.values())
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"PK\3\4" + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"yamnet\.tflite"):
            convert_weights(str(path))
