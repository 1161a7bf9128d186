"""Multi-scale deformable attention (Zhu et al., 2021, Eq. 3), in plain PyTorch on any device."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

try:
    from qdformer.layers.ms_deform_attn_triton import ms_deform_attn_triton
except ImportError:
    # Triton is not there on every platform.
    ms_deform_attn_triton = None  # type: ignore[assignment]

Shapes = list[tuple[int, int]]
Grid = Sequence[Tensor]
Steps = tuple[int, int]


def ms_deform_attn(
    value: Tensor,
    shapes: Shapes,
    neighbors: Tensor,
    centers: Tensor,
    offsets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Sum values that are read, bilinearly, at a few places of every level of some frames.

    On a GPU a Triton kernel does so in single precision, where Triton is there and deterministic
    algorithms are not asked for.

    Args:
        value: (F, S, heads, D) the cells of all levels of a frame in one row.
        shapes: (h, w) of each level; their areas add up to S.
        neighbors: (F, W) int64, the frames whose levels the queries of each frame sample.
        centers: (Q, W * levels, 2) where each query stands, (x, y) in cells of the level: the
            center of the first cell is (0, 0). Single or double precision, in which everything is
            computed.
        offsets: (F, Q, heads, W * levels, points, 2) from there to the places that are read, in
            cells. Outside of a level the value is zero.
        weights: (F, Q, heads, W * levels, points).

    Returns:
        (F, Q, heads * D) in the precision of ``value``.
    """
    if torch.onnx.is_in_onnx_export():
        return _by_grid_sample(value, shapes, neighbors, centers, offsets, weights)
    suits = value.is_cuda and centers.dtype == torch.float32
    if (
        suits
        and ms_deform_attn_triton is not None
        and not torch.are_deterministic_algorithms_enabled()
    ):
        return ms_deform_attn_triton(value, shapes, neighbors, centers, offsets, weights)
    return ms_deform_attn_plain(value, shapes, neighbors, centers, offsets, weights)


def ms_deform_attn_plain(
    value: Tensor,
    shapes: Shapes,
    neighbors: Tensor,
    centers: Tensor,
    offsets: Tensor,
    weights: Tensor,
) -> Tensor:
    """:func:`ms_deform_attn` without a kernel of its own: the same numbers at every run."""
    _, queries, heads, _, points = weights.shape
    canvas, starts, stride = _paint(value.to(centers.dtype), shapes)
    # Summands and limits as large as the axes they run along: broadcasting pairs costs tenfold.
    centers = (centers + 1)[:, None, :, None].expand(-1, -1, -1, points, -1).contiguous()
    far = _level_sizes(shapes, neighbors.shape[1], value.device)[:, None] + 1
    far = far.to(centers.dtype).expand(-1, points, -1).contiguous()
    # The rows of (frame, line, column, head) where each level of each neighbor begins.
    first = (neighbors[..., None] * canvas.shape[1] + starts).flatten(1)  # (F, W * levels)
    first = first[:, None] * (stride * heads) + torch.arange(heads, device=value.device)[:, None]
    summed = _BilinearSum.apply(
        canvas.reshape(-1, value.shape[-1]),
        offsets,
        weights.to(centers.dtype),
        (centers, far, first[:, None, ..., None].int()),
        (heads, stride * heads),
    )
    return summed.view(-1, queries, heads * value.shape[-1]).to(value.dtype)


def _by_grid_sample(
    value: Tensor,
    shapes: Shapes,
    neighbors: Tensor,
    centers: Tensor,
    offsets: Tensor,
    weights: Tensor,
) -> Tensor:
    """The same in operators that ONNX has, level by level; the sizes may be symbols."""
    frames, queries, heads, levels, points = weights.shape
    sizes = _level_sizes(shapes, neighbors.shape[1], value.device)[:, None]
    # Places from -1 to 1 over their level, (F * heads, Q, points, 2) for each level. Factors and
    # summands are as large as the axes they run along: broadcasting pairs is slow here too.
    scale = (2 / sizes).expand(-1, queries, -1)
    start = (centers.transpose(0, 1) + 0.5) * scale - 1
    scale, start = (part[:, :, None].expand(-1, -1, points, -1) for part in (scale, start))
    places = (offsets.permute(0, 2, 3, 1, 4, 5) * scale + start).flatten(0, 1).unbind(1)
    # (F * heads, Q, points) for each level
    parts = weights.permute(0, 2, 3, 1, 4).flatten(0, 1).unbind(1)
    maps = value.permute(0, 2, 3, 1).split([h * w for h, w in shapes], dim=-1)
    total = value.new_zeros(())
    for level in range(levels):
        neighbor, size = divmod(level, len(shapes))
        seen = maps[size][neighbors[:, neighbor]].flatten(0, 1).unflatten(-1, shapes[size])
        read = F.grid_sample(seen, places[level], align_corners=False)  # (F * heads, D, Q, points)
        total = total + (read * parts[level][:, None]).sum(-1)
    return total.reshape(frames, -1, queries).transpose(1, 2)


class _BilinearSum(torch.autograd.Function):
    """Each place reads four rows, each query and head sums those of its places: (F * Q * heads, D).

    ``rows`` (R, D) is the canvas, in which the next cell is ``steps[0]`` rows further and the next
    line ``steps[1]``. What can be computed again from offsets and weights is not kept for backward.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, offsets: Tensor, weights: Tensor, grid: Grid, steps: Steps
    ) -> Tensor:
        ctx.save_for_backward(rows, offsets, weights, *grid)
        ctx.steps = steps
        _, x, y, index = _places(offsets, grid, steps)
        total = rows.new_zeros((len(index), rows.shape[1]))
        for corner, shift in zip(_corners(x, y, weights), _shifts(steps)):
            corner = corner.view_as(index)
            total += F.embedding_bag(index, rows[shift:], per_sample_weights=corner, mode="sum")
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, offsets, weights, *grid = ctx.saved_tensors
        gradient, shifts = gradient.contiguous(), _shifts(ctx.steps)
        moved, x, y, index = _places(offsets, grid, ctx.steps)
        by_row = None
        if ctx.needs_input_grad[0]:
            by_row = _transposed(index, (x, y, weights), gradient, shifts, len(rows))
        # In place where it can be: there are more places than the rest of a step keeps in memory.
        one, right, below, both = (
            _products(index, gradient, rows[shift:]).view_as(x) for shift in shifts
        )
        upper, lower, along_y = right.sub_(one), both.sub_(below), below.sub_(one)
        along_y.lerp_((along_y + lower).sub_(upper), x)
        by_weight = one.addcmul_(x, upper).addcmul_(y, along_y)
        along_x = upper.lerp_(lower, y)
        by_offset = torch.stack((along_x.mul_(weights), along_y.mul_(weights)), dim=-1)
        by_offset.masked_fill_(moved, 0.0)
        return by_row, by_offset.to(offsets.dtype), by_weight, None, None


def _places(offsets: Tensor, grid: Grid, steps: Steps) -> tuple[Tensor, ...]:
    """Whether each place was moved, its way from its upper left cell, and the row of that."""
    centers, far, first = grid
    free = offsets + centers
    place = free.clamp(min=torch.zeros_like(far), max=far)
    moved = place != free
    del free
    # A place that is not a number stays one, but reads no foreign memory.
    x, y = place.int().clamp_(min=0).unbind(-1)
    index = x * steps[0] + y * steps[1]
    index += first
    return moved, *place.frac_().unbind(-1), index.flatten(0, 2).flatten(1)


def _corners(x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """What the four cells around each place count: itself, right of it, below, and both."""
    lower = weights * y
    upper = weights - lower
    lower_right, upper_right = lower * x, upper * x
    return upper.sub_(upper_right), upper_right, lower.sub_(lower_right), lower_right


def _shifts(steps: Steps) -> tuple[int, ...]:
    return 0, steps[0], steps[1], steps[0] + steps[1]


def _transposed(
    index: Tensor,
    parts: Sequence[Tensor],
    gradient: Tensor,
    shifts: Sequence[int],
    length: int,
) -> Tensor:
    """The gradient of the rows: what each row was added to, in an order that is always the same."""
    order = index.flatten().argsort(stable=True)
    parts = [part.flatten().index_select(0, order) for part in parts]
    place = order.floor_divide_(index.shape[1]).int()
    del order
    counts = torch.bincount(index.flatten(), minlength=length)
    starts = (counts.cumsum(0) - counts).int()
    total = gradient.new_zeros((length, gradient.shape[1]))
    for corner, shift in zip(_corners(*parts), shifts):
        total[shift:] += F.embedding_bag(
            place, gradient, starts, per_sample_weights=corner, mode="sum"
        )[: length - shift]
    return total


def _products(index: Tensor, gradient: Tensor, rows: Tensor) -> Tensor:
    """The gradient of the weights: the product of each place's gradient with each of its rows."""
    places, width = index.shape
    starts = torch.arange(0, index.numel() + 1, width, dtype=torch.int32, device=index.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR tensor support|invariant checks)")
        products = torch.sparse_csr_tensor(
            starts, index.flatten(), gradient.new_zeros(index.numel()), (places, len(rows))
        )
        torch.sparse.sampled_addmm(products, gradient, rows.t(), out=products)
        return products.values().view_as(index)


def _paint(value: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor, int]:
    """Lay the levels below each other, with zeros around each: no place needs a test for outside.

    Returns:
        The canvas (F, lines, stride, heads * D), the first line of each level (levels,), and the
        stride, cells in a line.
    """
    stride = max(w for _, w in shapes) + 3
    levels = value.flatten(2).split([h * w for h, w in shapes], dim=1)
    # A place on the far edge has neighbors beyond it, of weight zero: a second column and line.
    painted = [
        F.pad(level.unflatten(1, (h, w)), (0, 0, 1, stride - w - 1, 1, 2))
        for level, (h, w) in zip(levels, shapes)
    ]
    lines = _level_sizes(shapes, 1, value.device)[:, 1] + 3
    return torch.cat(painted, dim=1), lines.cumsum(0) - lines, stride


def _level_sizes(shapes: Shapes, window: int, device: torch.device) -> Tensor:
    """(w, h) of each level of each neighbor, (W * levels, 2) int64."""
    # No cache can hold the symbols that an export has for sizes.
    copied = _copied.__wrapped__ if torch.onnx.is_in_onnx_export() else _copied
    return copied(tuple(tuple(shape) for shape in shapes), device).flip(-1).repeat(window, 1)


@functools.lru_cache(maxsize=256)
def _copied(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Once for each pyramid: a copy makes the host wait for the device."""
    return torch.tensor(shapes, device=device)


class MSDeformAttn(nn.Module):
    """Each query looks at ``points`` places of each level, at offsets from its own position."""

    def __init__(self, *, channels: int, heads: int, levels: int, points: int):
        """
        Args:
            channels: C of queries, values and output; divisible by ``heads``.
            heads: attention heads.
            levels: maps that every query samples.
            points: places that a head samples in every map.
        """
        super().__init__()
        assert channels % heads == 0, f"{channels} channels cannot be shared by {heads} heads"
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        # Each head starts looking in a direction of its own, each point one cell further out.
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * distances[:, None]  # (heads, 1, points, 2)
        offsets = offsets.expand(-1, self.levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        shapes: list[tuple[int, int]],
        neighbors: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: (F, Q, C).
            reference_points: (Q, 2), (x, y) as fractions of the frame.
            memory: (F, S, C) the cells of all levels of a frame in one row.
            shapes: (h, w) of each level; their areas add up to S.
            neighbors: (F, W) the frames whose maps the queries of each frame sample, itself among
                them; ``levels`` is W times the number of shapes.
            padding: (F, S) bool, True for cells that are read as zero, as what lies outside is.

        Returns:
            (F, Q, C).
        """
        frames, queries, _ = query.shape
        split = (frames, queries, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(*split, 2)  # in cells
        weights = self.attention_weights(query).view(*split[:3], -1).softmax(-1).view(split)

        value = self.value_proj(memory)
        if padding is not None:
            # After the projection, whose bias is not zero.
            value = value.masked_fill(padding[..., None], 0.0)
        value = value.unflatten(-1, (self.heads, -1))
        sizes = _level_sizes(shapes, neighbors.shape[1], query.device)
        centers = reference_points[:, None] * sizes - 0.5  # (Q, W * levels, 2)
        return self.output_proj(ms_deform_attn(value, shapes, neighbors, centers, offsets, weights))
