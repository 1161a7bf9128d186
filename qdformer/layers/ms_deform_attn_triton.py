"""Multi-scale deformable attention (Zhu et al., 2021, Eq. 3) as Triton kernels for GPUs.

Importing this module needs Triton, which PyTorch brings along on Linux only.
"""

import functools
import itertools

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Rows (queries forward, samples backward) times channels of one program: each thread of the four
# warps that a program has by default reads four channels of one row at a time.
PROGRAM_SIZE = 512


def ms_deform_attn_triton(
    value: Tensor,
    shapes: list[tuple[int, int]],
    neighbors: Tensor,
    centers: Tensor,
    offsets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Sum values that are read, bilinearly, at a few places of every level of some frames.

    Products and sums are float32. Nothing here waits for the GPU, except for the first call with
    given shapes on a device. The gradient of ``value`` is summed by atomic additions: their order,
    and thereby its last bits, differ from run to run.

    Args:
        value: (F, S, heads, D), the cells of all levels of a frame in one row (level after level,
            row by row); float32, bfloat16 or float16.
        shapes: (h, w) of each level; their areas add up to S.
        neighbors: (F, W) int64, the frames whose maps the queries of each frame sample; each in
            [0, F), which is not checked.
        centers: (Q, W * levels, 2) float32, where each query stands, (x, y) in cells of the level,
            a cell's center lying at its index; the second axis runs over neighbors, then levels.
        offsets: (F, Q, heads, W * levels, P, 2), floating, from there to the places that are read,
            in cells. What lies outside of the map counts as zero.
        weights: (F, Q, heads, W * levels, P), floating.

    Returns:
        (F, Q, heads * D) in the dtype of ``value``.
    """
    table = _level_table(tuple(tuple(shape) for shape in shapes), value.device)
    return _MSDeformAttn.apply(value, neighbors, centers, offsets, weights, table)


class _MSDeformAttn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        inputs = [tensor.contiguous() for tensor in inputs]
        ctx.save_for_backward(*inputs)
        value, _, _, _, weights, _ = inputs
        frames, queries, heads, _, _ = weights.shape
        output = value.new_empty(frames, queries, heads * value.shape[-1])
        _launch(_forward_kernel, queries, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        value, _, _, offsets, weights, _ = inputs = ctx.saved_tensors
        _, queries, _, maps, points = weights.shape
        grad_value = torch.zeros_like(value, dtype=torch.float32)
        grad_offsets, grad_weights = torch.empty_like(offsets), torch.empty_like(weights)
        gradients = (grad_value, grad_offsets, grad_weights)
        samples = queries * maps * points
        _launch(_backward_kernel, samples, inputs, grad_output.contiguous(), *gradients)
        return grad_value.to(value.dtype), None, None, grad_offsets, grad_weights, None


def _launch(kernel, rows, inputs, *rest):
    """Run a kernel for every block of the ``rows`` that each head of each frame has."""
    value, _, _, _, weights, table = inputs
    _, cells, _, channels = value.shape
    frames, queries, heads, maps, points = weights.shape
    block_channels = triton.next_power_of_2(channels)
    block = max(PROGRAM_SIZE // block_channels, 1)
    # Programs that follow each other read the same head of the same maps, most likely from cache.
    grid = (triton.cdiv(rows, block), heads, frames)
    # Triton launches on the current device, wherever the tensors are.
    with torch.cuda.device(value.get_device()):
        kernel[grid](
            *inputs,
            *rest,
            cells,
            queries,
            heads,
            CHANNELS=channels,
            LEVELS=len(table),
            MAPS=maps,
            POINTS=points,
            BLOCK=block,
            BLOCK_CHANNELS=block_channels,
        )


@torch.compiler.assume_constant_result
def _level_table(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """First cell, height and width of each level, (levels, 3) int32; copied to a device once."""
    return _copied_level_table(shapes, device)


@functools.lru_cache
def _copied_level_table(shapes, device):
    starts = itertools.accumulate((height * width for height, width in shapes), initial=0)
    table = [(start, height, width) for start, (height, width) in zip(starts, shapes)]
    # The first to need it may be inference, the next one training, which saves it for backward.
    with torch.inference_mode(False):
        return torch.tensor(table, dtype=torch.int32, device=device)


# The helpers load nothing: torch.compile takes every pointer that a function is given for written
# to, if an address is written to that was made from what the function returns.
@triton.jit
def _cell_before(place, size):
    """The last cell at or before each place along one axis, and the way from its center."""
    cell = tl.floor(place)
    # Clamped, it still lies outside if it did; a huge number or NaN must not become an index.
    return tl.minimum(tl.maximum(cell, -2), size).to(tl.int32), place - cell


@triton.jit
def _corner(x, y, way_x, way_y, width, height, RIGHT: tl.constexpr, BELOW: tl.constexpr):
    """One of the four cells around each place: its index in the map, whether it lies inside, its
    shares along x and y.
    """
    x, y = x + RIGHT, y + BELOW
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return y * width + x, inside, way_x if RIGHT else 1 - way_x, way_y if BELOW else 1 - way_y


@triton.jit
def _forward_kernel(
    value, neighbors, centers, offsets, weights, table, output, cells, queries, heads,
    CHANNELS: tl.constexpr, LEVELS: tl.constexpr, MAPS: tl.constexpr, POINTS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """A block of queries: the sum over the samples of each."""
    frame, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = query < queries
    row = (frame * queries + query) * heads + head
    channel = tl.arange(0, BLOCK_CHANNELS)[None, :]
    total = tl.zeros((BLOCK, BLOCK_CHANNELS), tl.float32)
    for index in range(MAPS):
        neighbor = tl.load(neighbors + frame * (MAPS // LEVELS) + index // LEVELS)
        level = table + index % LEVELS * 3
        first, height, width = tl.load(level), tl.load(level + 1), tl.load(level + 2)
        first += neighbor * cells
        center = centers + 2 * (query * MAPS + index)
        center_x = tl.load(center, mask=exists, other=-2)
        center_y = tl.load(center + 1, mask=exists, other=-2)
        for point in tl.static_range(POINTS):
            sample = (row * MAPS + index) * POINTS + point
            weight = tl.load(weights + sample, mask=exists, other=0).to(tl.float32)
            offset = offsets + 2 * sample
            x, way_x = _cell_before(center_x + tl.load(offset, mask=exists, other=0), width)
            y, way_y = _cell_before(center_y + tl.load(offset + 1, mask=exists, other=0), height)
            for below in tl.static_range(2):
                for right in tl.static_range(2):
                    cell, inside, share_x, share_y = _corner(
                        x, y, way_x, way_y, width, height, right, below
                    )
                    address = (((first + cell) * heads + head) * CHANNELS)[:, None] + channel
                    mask = inside[:, None] & (channel < CHANNELS)
                    read = tl.load(value + address, mask=mask, other=0).to(tl.float32)
                    total += (weight * share_x * share_y)[:, None] * read
    mask = exists[:, None] & (channel < CHANNELS)
    tl.store(output + row[:, None] * CHANNELS + channel, total, mask=mask)


@triton.jit
def _backward_kernel(
    value, neighbors, centers, offsets, weights, table,
    grad_output, grad_value, grad_offsets, grad_weights, cells, queries, heads,
    CHANNELS: tl.constexpr, LEVELS: tl.constexpr, MAPS: tl.constexpr, POINTS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """A block of samples; those of one query follow each other."""
    frame, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    query, sample = sample // (MAPS * POINTS), sample % (MAPS * POINTS)
    exists = query < queries
    row = (frame * queries + query) * heads + head
    channel = tl.arange(0, BLOCK_CHANNELS)[None, :]

    index = sample // POINTS
    neighbor = tl.load(neighbors + frame * (MAPS // LEVELS) + index // LEVELS)
    level = table + index % LEVELS * 3
    first, height, width = tl.load(level), tl.load(level + 1), tl.load(level + 2)
    first += neighbor * cells
    center = centers + 2 * (query * MAPS + index)
    sample += row * (MAPS * POINTS)
    weight = tl.load(weights + sample, mask=exists, other=0).to(tl.float32)
    offset = offsets + 2 * sample
    place_x = tl.load(center, mask=exists, other=-2) + tl.load(offset, mask=exists, other=0)
    place_y = tl.load(center + 1, mask=exists, other=-2) + tl.load(offset + 1, mask=exists, other=0)
    x, way_x = _cell_before(place_x, width)
    y, way_y = _cell_before(place_y, height)
    mask = exists[:, None] & (channel < CHANNELS)
    grad = tl.load(grad_output + row[:, None] * CHANNELS + channel, mask=mask, other=0)
    grad = grad.to(tl.float32)

    grad_x = tl.zeros((BLOCK,), tl.float32)
    grad_y = tl.zeros((BLOCK,), tl.float32)
    grad_weight = tl.zeros((BLOCK,), tl.float32)
    for below in tl.static_range(2):
        for right in tl.static_range(2):
            cell, inside, share_x, share_y = _corner(
                x, y, way_x, way_y, width, height, right, below
            )
            address = (((first + cell) * heads + head) * CHANNELS)[:, None] + channel
            mask = inside[:, None] & (channel < CHANNELS)
            read = tl.load(value + address, mask=mask, other=0).to(tl.float32)
            part = (weight * share_x * share_y)[:, None] * grad
            tl.atomic_add(grad_value + address, part, mask=mask, sem="relaxed")
            product = tl.sum(read * grad, axis=1)
            grad_x += (2 * right - 1) * share_y * product
            grad_y += (2 * below - 1) * share_x * product
            grad_weight += share_x * share_y * product
    tl.store(grad_offsets + 2 * sample, weight * grad_x, mask=exists)
    tl.store(grad_offsets + 2 * sample + 1, weight * grad_y, mask=exists)
    tl.store(grad_weights + sample, grad_weight, mask=exists)
