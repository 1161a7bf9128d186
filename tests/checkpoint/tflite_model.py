"""Writes TensorFlow Lite models of nothing but convolutions, as YAMNet's is."""

import flatbuffers
import numpy as np
import tflite

QUANTIZED = {"int8": tflite.TensorType.INT8, "int32": tflite.TensorType.INT32}


def write_tflite(path, layers, activation=tflite.ActivationFunctionType.RELU6):
    """Layers are (depthwise, int8 weight, its scales, int32 bias, its scales) as stored."""
    builder = flatbuffers.Builder(1024)
    buffers, tensors, operators = [_buffer(builder, b"")], [], []
    for depthwise, *given in layers:
        inputs = [0]  # of which nothing is read
        for values, scales in (given[:2], given[2:]):
            buffers.append(_buffer(builder, values.tobytes()))
            axis = 3 if depthwise and values.ndim == 4 else 0
            tensors.append(_tensor(builder, values, scales, axis, len(buffers) - 1))
            inputs.append(len(tensors) - 1)
        operators.append(_operator(builder, depthwise, inputs, activation))
    tensors, operators = _vector(builder, tensors), _vector(builder, operators)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors)
    tflite.SubGraphAddOperators(builder, operators)
    graphs = _vector(builder, [tflite.SubGraphEnd(builder)])
    codes = []
    for code in (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D):
        tflite.OperatorCodeStart(builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
        codes.append(tflite.OperatorCodeEnd(builder))
    codes, buffers = _vector(builder, codes), _vector(builder, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())


def _vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _buffer(builder, content):
    data = builder.CreateByteVector(content)
    tflite.BufferStart(builder)
    tflite.BufferAddData(builder, data)
    return tflite.BufferEnd(builder)


def _tensor(builder, values, scales, axis, buffer):
    shape = builder.CreateNumpyVector(np.array(values.shape, np.int32))
    scale = builder.CreateNumpyVector(scales)
    zero = builder.CreateNumpyVector(np.zeros(len(scales), np.int64))
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero)
    tflite.QuantizationParametersAddQuantizedDimension(builder, axis)
    quantization = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, QUANTIZED[values.dtype.name])
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddQuantization(builder, quantization)
    return tflite.TensorEnd(builder)


def _operator(builder, depthwise, inputs, activation):
    if depthwise:
        tflite.DepthwiseConv2DOptionsStart(builder)
        tflite.DepthwiseConv2DOptionsAddFusedActivationFunction(builder, activation)
        options = tflite.DepthwiseConv2DOptionsEnd(builder)
    else:
        tflite.Conv2DOptionsStart(builder)
        tflite.Conv2DOptionsAddFusedActivationFunction(builder, activation)
        options = tflite.Conv2DOptionsEnd(builder)
    tflite.OperatorStartInputsVector(builder, len(inputs))
    for index in reversed(inputs):
        builder.PrependInt32(index)
    inputs = builder.EndVector()
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, int(depthwise))
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddBuiltinOptions(builder, options)
    return tflite.OperatorEnd(builder)
