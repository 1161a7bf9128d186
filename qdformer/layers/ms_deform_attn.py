"""Multi-scale deformable attention (Zhu et al., 2021, Eq. 3) in plain PyTorch, on any device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def ms_deform_attn(values: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Sum values that are read, bilinearly, at a few locations of every level.

    Args:
        values: one (F, heads, D, h, w) map a level.
        locations: (F, Q, heads, levels, points, 2), (x, y) as fractions of the level's width and
            height; outside [0, 1] the value is zero.
        weights: (F, Q, heads, levels, points), adding up to 1 over levels and points.

    Returns:
        (F, Q, heads * D).
    """
    frames, queries, heads, _, points, _ = locations.shape
    grids = (
        (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    )  # (levels, F*heads, Q, P, 2)
    sampled = [
        F.grid_sample(value.flatten(0, 1), grid, align_corners=False)  # (F*heads, D, Q, P)
        for value, grid in zip(values, grids)
    ]
    weights = weights.permute(0, 2, 1, 3, 4).reshape(frames * heads, 1, queries, -1)
    summed = (torch.cat(sampled, dim=-1) * weights).sum(-1)  # (F*heads, D, Q)
    return summed.view(frames, -1, queries).transpose(1, 2)


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
        neighbours: Tensor,
    ) -> Tensor:
        """
        Args:
            query: (F, Q, C).
            reference_points: (Q, 2), (x, y) as fractions of the frame.
            memory: (F, S, C) the cells of all levels of a frame in one row, padding set to zero.
            shapes: (h, w) of each level; their areas add up to S.
            neighbours: (F, W) the frames whose maps the queries of each frame sample, itself among
                them; ``levels`` is W times the number of shapes.

        Returns:
            (F, Q, C).
        """
        frames, queries, _ = query.shape
        split = (frames, queries, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(*split, 2)
        weights = self.attention_weights(query).view(*split[:3], -1).softmax(-1).view(split)

        value = self.value_proj(memory).unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 1)
        maps = [
            cells.unflatten(-1, shape)
            for cells, shape in zip(value.split([h * w for h, w in shapes], dim=-1), shapes)
        ]
        values = [level[frame] for frame in neighbours.unbind(1) for level in maps]
        sizes = offsets.new_tensor([(w, h) for h, w in shapes]).repeat(neighbours.shape[1], 1)
        locations = reference_points[:, None, None, None] + offsets / sizes[:, None]
        return self.output_proj(ms_deform_attn(values, locations, weights))
