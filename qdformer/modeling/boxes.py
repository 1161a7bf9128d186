"""Boxes of objects and their generalized IoU."""

import torch
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) center x, y, width, height to x0, y0, x1, y1."""
    center, size = boxes.split(2, dim=-1)
    return torch.cat((center - size / 2, center + size / 2), dim=-1)


def boxes_of_masks(masks: Tensor) -> Tensor:
    """The rectangles with the mean and the variance of masks along each axis.

    Args:
        masks: (..., h, w) weights of the cells, in [0, 1].

    Returns:
        (..., 4) center x, y, width, height as fractions of the frame; for a mask that is one filled
        rectangle its own box.
    """
    spans = []
    for marginal in (masks.sum(-2), masks.sum(-1)):
        length = marginal.shape[-1]
        places = (torch.arange(length, device=masks.device) + 0.5) / length
        share = marginal / (marginal.sum(-1, keepdim=True) + 1e-6)
        mean = (share * places).sum(-1)
        variance = (share * (places - mean[..., None]).square()).sum(-1)
        # Within a cell the weight is spread evenly.
        spans.append((mean, (12 * variance + length**-2).sqrt()))
    (x, width), (y, height) = spans
    return torch.stack((x, y, width, height), dim=-1)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al., 2019).

    fvcore's looks at the values of the boxes, for which the host has to wait for the device.

    Args:
        boxes: (..., 4) x0, y0, x1, y1.
        targets: boxes in the same form; shapes broadcast.

    Returns:
        (...) in [0, 2].
    """
    (low, high), (target_low, target_high) = boxes.split(2, -1), targets.split(2, -1)
    overlap = _area(torch.maximum(low, target_low), torch.minimum(high, target_high))
    hull = _area(torch.minimum(low, target_low), torch.maximum(high, target_high))
    union = _area(low, high) + _area(target_low, target_high) - overlap
    return 1 - overlap / (union + 1e-7) + (hull - union) / (hull + 1e-7)


def _area(low: Tensor, high: Tensor) -> Tensor:
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height
