"""Visual encoder, second half: a multi-scale deformable transformer encoder over the T frames."""

import dataclasses

import torch
from torch import Tensor, nn

from qdformer.layers.ms_deform_attn import MSDeformAttn
from qdformer.layers.padded_norm import PaddedGroupNorm
from qdformer.layers.position_encoding import sine_position_2d
from qdformer.layers.transformer import MLP
from qdformer.modeling.visual_tokens import VisualTokens


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over levels (and neighboring frames), then a feed-forward net."""

    def __init__(self, *, channels: int, heads: int, levels: int, points: int, feedforward: int):
        super().__init__()
        self.attention = MSDeformAttn(channels=channels, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(channels)
        self.ffn = MLP(channels, feedforward, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(
        self, visual: VisualTokens, tokens: Tensor, reference_points: Tensor, neighbors: Tensor
    ) -> Tensor:
        """Refine ``tokens`` (F, S, C); shapes, positions and padding are those of ``visual``."""
        attended = self.attention(
            tokens + visual.position,
            reference_points,
            tokens,
            visual.shapes,
            neighbors,
            visual.padding,
        )
        tokens = self.norm1(tokens + attended)
        return self.norm2(tokens + self.ffn(tokens))


class _LevelProjection(nn.Sequential):
    """A map of the backbone to C channels."""

    def forward(  # type: ignore[override]
        self, features: Tensor, padding: Tensor | None
    ) -> Tensor:
        projection, norm = self
        return norm(projection(features), padding)


class DeformableEncoder(nn.Module):
    """Project the backbone's maps to C channels and let all of their cells exchange."""

    def __init__(
        self,
        *,
        in_channels: dict[str, int],
        channels: int,
        layers: int,
        heads: int,
        points: int,
        feedforward: int,
        temporal_window: int,
    ):
        """
        Args:
            in_channels: the backbone's maps to take, finest first, and their channels.
            channels: C.
            layers: encoder layers.
            heads: attention heads.
            points: places that a head samples in every map.
            feedforward: hidden channels of the feed-forward nets.
            temporal_window: how many frames before and after its own each query samples; 0 keeps
                every frame to itself.
        """
        super().__init__()
        self.in_features = list(in_channels)
        self.temporal_window = temporal_window
        self.projections = nn.ModuleList(
            _LevelProjection(
                nn.Conv2d(size, channels, 1),
                PaddedGroupNorm(min(32, channels // 4), channels),
            )
            for size in in_channels.values()
        )
        self.level_embedding = nn.Embedding(len(in_channels), channels)
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                channels=channels,
                heads=heads,
                levels=len(in_channels) * (2 * temporal_window + 1),
                points=points,
                feedforward=feedforward,
            )
            for _ in range(layers)
        )

    def forward(
        self, features: dict[str, Tensor], valid: Tensor, lengths: list[int]
    ) -> VisualTokens:
        """
        Args:
            features: the backbone's maps, (F, channels, h, w) each.
            valid: (F, 2) the fraction of height and width that is not padding, on the CPU.
            lengths: frames of each clip.

        Returns:
            F_v, with the levels ``in_features``.
        """
        # An exported network gets both kinds of frames.
        padded = torch.onnx.is_in_onnx_export() or bool((valid < 1).any())
        shapes = [(features[name].shape[-2], features[name].shape[-1]) for name in self.in_features]
        valid = valid.to(features[self.in_features[0]].device, non_blocking=True)
        centers = [cell_centers(*shape, valid) for shape in shapes]
        paddings = [padding_mask(each, valid) if padded else None for each in centers]
        maps = [
            level(features[name], padding)
            for name, level, padding in zip(self.in_features, self.projections, paddings)
        ]
        channels = maps[0].shape[1]
        position = torch.cat(
            [
                sine_position_2d(*shape, valid, channels) + embedding
                for shape, embedding in zip(shapes, self.level_embedding.weight)
            ],
            dim=1,
        )
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        padding = (
            torch.cat([each for each in paddings if each is not None], dim=1) if padded else None
        )
        visual = VisualTokens(tokens, position, shapes, padding)
        neighbors = neighboring_frames(lengths, self.temporal_window)
        neighbors = neighbors.to(tokens.device, non_blocking=True)
        for layer in self.layers:
            tokens = layer(visual, tokens, torch.cat(centers), neighbors)
        return dataclasses.replace(visual, tokens=tokens)


def cell_centers(height: int, width: int, like: Tensor) -> Tensor:
    """The centers of a map's cells, row by row: (h*w, 2), (x, y) as fractions of the frame."""
    rows = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
    columns = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)


def padding_mask(centers: Tensor, valid: Tensor) -> Tensor:
    """True for cells whose center (S, 2) lies in the padding of a frame (F, 2): (F, S) bool.

    However small a frame is, the first row and column of a level are part of it.
    """
    ends = torch.maximum(valid.flip(-1), centers[0])
    return (centers[None] > ends[:, None]).any(-1)


def neighboring_frames(lengths: list[int], window: int) -> Tensor:
    """The frames that each frame samples: itself and ``window`` on either side, within its clip.

    Args:
        lengths: frames of each clip, F in all.
        window: frames on either side; at a clip's ends the end frame is repeated.

    Returns:
        (F, 2 * window + 1) int64 indices of frames.
    """
    offsets = torch.arange(-window, window + 1)
    starts = [sum(lengths[:clip]) for clip in range(len(lengths))]
    return torch.cat(
        [
            start + (torch.arange(length)[:, None] + offsets).clamp(0, length - 1)
            for start, length in zip(starts, lengths)
        ]
    )
