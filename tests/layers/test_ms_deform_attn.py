import math

import pytest
import torch

from qdformer.layers.ms_deform_attn import MSDeformAttn, ms_deform_attn

FRAMES, QUERIES, HEADS, POINTS, CHANNELS = 2, 3, 2, 2, 4
SHAPES = [(4, 6), (2, 3)]


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def rand(*size):
        return torch.rand(*size, generator=generator, dtype=dtype)

    values = [rand(FRAMES, HEADS, CHANNELS, *shape) for shape in SHAPES]
    # Some locations lie outside of the map.
    locations = rand(FRAMES, QUERIES, HEADS, len(SHAPES), POINTS, 2) * 1.4 - 0.2
    weights = rand(FRAMES, QUERIES, HEADS, len(SHAPES) * POINTS).softmax(-1)
    return values, locations, weights.view(FRAMES, QUERIES, HEADS, len(SHAPES), POINTS)


def bilinear(value, x, y):
    """Read a (h, w) map at a place given in cells, zero outside; cell i has its centre at i."""
    height, width = value.shape
    result = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                result += weight * float(value[row, column])
    return result


def test_equals_explicit_loops():
    values, locations, weights = inputs()
    expected = torch.zeros(FRAMES, QUERIES, HEADS, CHANNELS, dtype=torch.float64)
    for f in range(FRAMES):
        for q in range(QUERIES):
            for head in range(HEADS):
                for level, (height, width) in enumerate(SHAPES):
                    for p in range(POINTS):
                        x, y = locations[f, q, head, level, p].tolist()
                        for c in range(CHANNELS):
                            expected[f, q, head, c] += weights[f, q, head, level, p] * bilinear(
                                values[level][f, head, c], x * width - 0.5, y * height - 0.5
                            )
    torch.testing.assert_close(ms_deform_attn(values, locations, weights), expected.flatten(2))


def test_gradients():
    values, locations, weights = inputs()
    leaves = [tensor.requires_grad_() for tensor in (*values, locations, weights)]

    def function(first, second, locations, weights):
        return ms_deform_attn([first, second], locations, weights)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return MSDeformAttn(channels=8, heads=2, levels=2, points=3).double()


def run(attention, query, memory, neighbours):
    centres = torch.rand(query.shape[1], 2, dtype=torch.float64)
    return attention(query, centres, memory, [(2, 3)], neighbours)


def test_samples_only_its_neighbours(attention):
    memory = torch.rand(4, 6, 8, dtype=torch.float64, requires_grad=True)
    query = torch.rand(4, 5, 8, dtype=torch.float64)
    output = run(attention, query, memory, torch.tensor([[0, 1], [1, 0], [2, 3], [3, 2]]))
    (gradient,) = torch.autograd.grad(output[0].sum(), memory)
    assert gradient[:2].abs().sum(dim=(1, 2)).min() > 0
    assert gradient[2:].abs().max() == 0


def test_constant_memory_passes_through(attention):
    """Weights add up to 1: where every sample is inside, a constant map gives its projection."""
    with torch.no_grad():
        attention.sampling_offsets.bias.zero_()
    memory = torch.ones(1, 6, 8, dtype=torch.float64)
    centre = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    query = torch.rand(1, 1, 8, dtype=torch.float64)
    output = attention(query, centre, memory, [(2, 3)], torch.zeros(1, 2, dtype=torch.long))
    expected = attention.output_proj(attention.value_proj(memory[:, :1]))
    torch.testing.assert_close(output, expected)
