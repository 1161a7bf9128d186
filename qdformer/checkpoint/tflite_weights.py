"""The convolutions of a TensorFlow Lite model, as YAMNet is released."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qdformer.errors import InputError


def read_convolutions(path: str) -> dict[str, Tensor]:
    """Weights and biases of all convolutions, in the order in which they are computed.

    Args:
        path: a ``.tflite``. Integers are multiplied by the scales of their channels.

    Returns:
        ``0.weight`` (out, in / groups, height, width), ``0.bias`` (out,), ``1.weight``, ...

    Raises:
        InputError: the package ``tflite`` is not installed.
        ValueError: the file is no such model, or a convolution is not followed by ReLU6.
    """
    try:
        import tflite
    except ImportError as error:
        raise InputError(
            f"{path}: to read it, `pip install tflite`, which knows the format"
        ) from error
    content = Path(path).read_bytes()
    if not tflite.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError("it is no TensorFlow Lite model")
    model = tflite.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    layers = {
        tflite.BuiltinOperator.CONV_2D: (tflite.Conv2DOptions, (0, 3, 1, 2)),
        tflite.BuiltinOperator.DEPTHWISE_CONV_2D: (tflite.DepthwiseConv2DOptions, (3, 0, 1, 2)),
    }
    weights: dict[str, Tensor] = {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # The newer field, which the older one is too narrow for.
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind not in layers:
            continue
        options, order = layers[kind]
        table, options = operator.BuiltinOptions(), options()
        options.Init(table.Bytes, table.Pos)
        if options.FusedActivationFunction() != tflite.ActivationFunctionType.RELU6:
            raise ValueError(
                f"its operator {number} is a convolution without ReLU6, which YAMNet's TensorFlow "
                "Lite release has after each (the Keras release has ReLU and other weights)"
            )
        _, weight, bias = (graph.Tensors(operator.Inputs(k)) for k in range(3))
        layer = len(weights) // 2
        weights[f"{layer}.weight"] = _values(model, weight).permute(order)
        weights[f"{layer}.bias"] = _values(model, bias)
    return weights


def _values(model: Any, tensor: Any) -> Tensor:
    """What a tensor of the model stands for, float32."""
    import tflite

    types = {
        tflite.TensorType.FLOAT32: np.float32,
        tflite.TensorType.INT8: np.int8,
        tflite.TensorType.INT32: np.int32,
    }
    stored = model.Buffers(tensor.Buffer()).DataAsNumpy()
    values = np.frombuffer(stored, types[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
    quantization = tensor.Quantization()
    if values.dtype == np.float32 or quantization is None:
        return torch.tensor(values, dtype=torch.float32)
    shape = [1] * values.ndim
    shape[quantization.QuantizedDimension()] = -1
    scale = quantization.ScaleAsNumpy().reshape(shape)
    zero = quantization.ZeroPointAsNumpy().reshape(shape)
    return torch.from_numpy((values.astype(np.float64) - zero) * scale).float()
