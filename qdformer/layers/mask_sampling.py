"""Masks at stride 4 of a padded frame, as the pixels of a picture of any size."""

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_STRIDE = 4
"""Pixels of the network's input to a side of a mask's cell."""


def pixel_grid(valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the pixels of a result lie in the padded frame, as ``grid_sample`` counts.

    Args:
        valid: (2,) the fraction of height and width that is not padding.
        size: (H, W) of the result.

    Returns:
        (1, H, W, 2), x and y in [-1, 1].
    """
    rows, columns = [
        2 * fraction * (torch.arange(length) + 0.5) / length - 1
        for fraction, length in zip(valid, size)
    ]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1)[None]


def masks_at_size(masks: Tensor, frame: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bring masks of a padded frame to the size of a picture, without the padding.

    Logits are interpolated, as for label maps.

    Args:
        masks: (n, h, w) in [0, 1]; n may be 0.
        frame: height and width of the network's input before it was padded, pixels.
        size: (H, W) of the picture.

    Returns:
        (n, H, W) in [0, 1] on the CPU.
    """
    if not len(masks):
        return torch.zeros((0, *size))
    valid = torch.tensor(frame) / (MASK_STRIDE * torch.tensor(masks.shape[-2:]))
    logits = masks.cpu().float().logit(1e-6)[None]
    grid = pixel_grid(valid, size)
    return F.grid_sample(logits, grid, align_corners=False, padding_mode="border")[0].sigmoid()
