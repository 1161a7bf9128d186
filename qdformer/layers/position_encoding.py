"""Sine ("standard triangle") positional embeddings, for time and for the image plane."""

import math

import torch
from torch import Tensor


def sine_position(positions: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Encode real positions as interleaved sines and cosines of falling frequency.

    Args:
        positions: (...) float positions.
        channels: C, even.
        temperature: the longest wavelength is ``2 pi temperature``.

    Returns:
        (..., C) float32 in [-1, 1].
    """
    assert channels % 2 == 0, f"{channels} channels cannot hold pairs of sine and cosine"
    exponent = torch.arange(0, channels, 2, dtype=torch.float32, device=positions.device)
    angles = positions.float()[..., None] * temperature ** (-exponent / channels)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def sine_position_2d(height: int, width: int, valid: Tensor, channels: int) -> Tensor:
    """Encode the cells of a feature map by row and column, half of the channels each.

    Rows and columns are scaled so that the valid part of every frame runs from 0 to 2 pi: a frame
    that was padded to share a batch gets the same embedding as on its own.

    Args:
        height: h of the feature map, in cells.
        width: w of the feature map, in cells.
        valid: (F, 2) the fraction of height and width that is not padding, in (0, 1].
        channels: C, divisible by 4.

    Returns:
        (F, h*w, C) float32.
    """
    half = channels // 2
    rows = torch.arange(height, dtype=torch.float32, device=valid.device) + 0.5
    columns = torch.arange(width, dtype=torch.float32, device=valid.device) + 0.5
    rows = 2 * math.pi * rows / (height * valid[:, :1])  # (F, h)
    columns = 2 * math.pi * columns / (width * valid[:, 1:])  # (F, w)
    rows = sine_position(rows, half)[:, :, None].expand(-1, -1, width, -1)
    columns = sine_position(columns, half)[:, None].expand(-1, height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(1, 2)
