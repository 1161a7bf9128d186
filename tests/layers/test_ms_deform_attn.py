import itertools
import math

import pytest
import torch

from qdformer.layers.ms_deform_attn import MSDeformAttn, ms_deform_attn

FRAMES, QUERIES, HEADS, POINTS, CHANNELS = 2, 3, 2, 2, 4
SHAPES = [(4, 6), (2, 3)]


CELLS = sum(height * width for height, width in SHAPES)
NEIGHBOURS = torch.tensor([[0, 1], [1, 1]])


def inputs(dtype=torch.float64, spread=1.4):
    generator = torch.Generator().manual_seed(0)

    def rand(*size):
        return torch.rand(*size, generator=generator, dtype=dtype)

    value = rand(FRAMES, CELLS, HEADS, CHANNELS)
    levels = len(SHAPES) * NEIGHBOURS.shape[1]
    # Some locations lie outside of the map.
    sizes = torch.tensor([(w, h) for h, w in SHAPES], dtype=dtype).repeat(NEIGHBOURS.shape[1], 1)
    locations = (rand(FRAMES, QUERIES, HEADS, levels, POINTS, 2) - 0.5) * spread + 0.5
    locations = locations * sizes[:, None] - 0.5
    weights = rand(FRAMES, QUERIES, HEADS, levels * POINTS).softmax(-1)
    return value, locations, weights.view(FRAMES, QUERIES, HEADS, levels, POINTS)


def attend(value, locations, weights):
    centers = torch.full((QUERIES, locations.shape[3], 2), 0.25, dtype=locations.dtype)
    return ms_deform_attn(value, SHAPES, NEIGHBOURS, centers, locations - 0.25, weights)


def bilinear(value, x, y):
    """Read a (h, w) map at a place given in cells, zero outside; cell i has its center at i."""
    height, width = value.shape
    result = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                result += weight * float(value[row, column])
    return result


def loops(value, locations, weights):
    """The definition, one number at a time."""
    result = torch.zeros(FRAMES, QUERIES, HEADS, CHANNELS, dtype=torch.float64)
    for f, q, head, c in itertools.product(*map(range, result.shape)):
        for level, p in itertools.product(range(4), range(POINTS)):
            frame = int(NEIGHBOURS[f, level // len(SHAPES)])
            height, width = SHAPES[level % len(SHAPES)]
            start = sum(h * w for h, w in SHAPES[: level % len(SHAPES)])
            cells = value[frame, start : start + height * width, head, c].view(height, width)
            x, y = locations[f, q, head, level, p].tolist()
            result[f, q, head, c] += weights[f, q, head, level, p] * bilinear(cells, x, y)
    return result.flatten(2)


@pytest.mark.parametrize("spread", [1.4, 20, 1e12])
def test_equals_explicit_loops(spread):
    value, locations, weights = inputs(spread=spread)
    expected = loops(value, locations, weights)
    torch.testing.assert_close(attend(value, locations, weights), expected)


@pytest.mark.parametrize("spread", [1.4, 20])
def test_the_operators_of_an_onnx_export_give_the_same(spread, monkeypatch):
    value, locations, weights = inputs(spread=spread)
    expected = attend(value, locations, weights)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    torch.testing.assert_close(attend(value, locations, weights), expected)


def test_at_cells_and_on_edges():
    """Whole numbers are the cells themselves; one cell beyond the last one there is nothing."""
    value, locations, weights = inputs()
    corners = itertools.cycle([(0, 0), (5, 3), (6, 4), (-1, -1), (5, 0), (-0.5, 3.5), (2, 1)])
    for place in locations.view(-1, 2):
        place[:] = torch.tensor(next(corners))
    torch.testing.assert_close(attend(value, locations, weights), loops(value, locations, weights))


@pytest.mark.parametrize("shapes", [[(1, 1)], [(3, 5)], [(2, 2), (4, 6)]])
def test_the_far_corner_of_the_last_level(shapes):
    """Beyond the last cell of the last frame there is nothing, also where that level is widest."""
    cells, levels = sum(h * w for h, w in shapes), len(shapes)
    value, far = torch.ones(2, cells, 1, 4), torch.full((2, 1, 1, levels, 1, 2), 1e9)
    arguments = (value, shapes, torch.tensor([[0], [1]]), torch.zeros(1, levels, 2))
    result = ms_deform_attn(*arguments, far, torch.ones(2, 1, 1, levels, 1))
    assert result.abs().max() == 0


def test_gradients():
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    assert torch.autograd.gradcheck(attend, leaves)


def test_gradients_outside():
    """Far from every cell nothing can be learnt, and nothing may be invented."""
    value, locations, weights = (tensor.requires_grad_() for tensor in inputs(spread=50))
    sizes = torch.tensor([(w, h) for h, w in SHAPES] * 2)[:, None]
    outside = ((locations <= -1) | (locations >= sizes)).any(-1)
    (gradient,) = torch.autograd.grad(attend(value, locations, weights).sum(), locations)
    assert outside.any()
    assert gradient[outside].abs().max() == 0


def test_the_gradient_is_the_same_each_time():
    value, locations, weights = (tensor.requires_grad_() for tensor in inputs(torch.float32))
    first, second = (
        torch.autograd.grad(attend(value, locations, weights).square().sum(), value)[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_place_that_is_no_number_reads_nothing_foreign():
    value, locations, weights = inputs()
    locations[0, 0, 0, 0, 0, 0] = torch.nan
    result = attend(value, locations, weights).unflatten(2, (HEADS, -1))
    assert result[0, 0, 0].isnan().all()
    assert result[:, 1:].isfinite().all()


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return MSDeformAttn(channels=8, heads=2, levels=2, points=3).double()


def run(attention, query, memory, neighbors):
    centers = torch.rand(query.shape[1], 2, dtype=torch.float64)
    return attention(query, centers, memory, [(2, 3)], neighbors)


def test_samples_only_its_neighbors(attention):
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
    center = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    query = torch.rand(1, 1, 8, dtype=torch.float64)
    output = attention(query, center, memory, [(2, 3)], torch.zeros(1, 2, dtype=torch.long))
    expected = attention.output_proj(attention.value_proj(memory[:, :1]))
    torch.testing.assert_close(output, expected)
