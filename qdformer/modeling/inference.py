"""Label maps out of token masks and class probabilities (appendix D, Eq. 1)."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What counts as confident (appendix C).

    Attributes:
        mask: a token takes part in a pixel where its mask's probability is above this.
        classes: a token takes part in a frame if its likeliest class is at least this probable.
    """

    mask: float = 0.5
    classes: float = 0.1


def segment_clip(
    logits: Tensor,
    masks: Tensor,
    *,
    valid: Tensor,
    size: tuple[int, int],
    thresholds: Thresholds,
    background_class: int | None = None,
) -> dict[str, Tensor]:
    """Give every pixel of a clip the class with the largest sum over tokens of P_i[C] M_i.

    The empty class takes no part; a pixel without a confident token is background.

    Args:
        logits: (T, N, num_classes) class logits.
        masks: (T, N, h, w) mask logits over the padded frame.
        valid: (2,) the fraction of height and width that is not padding.
        size: (H, W) of the result.
        thresholds: what counts as confident.
        background_class: the class that stands for background, if it was trained as one.

    Returns:
        ``sem_seg`` (T, H, W) uint8 with 0 for background and class + 1 otherwise; ``foreground``
        (T, H, W) float32 in [0, 1], above ``thresholds.mask`` exactly where ``sem_seg`` is above 0;
        ``scores`` (T, N) and ``classes`` (T, N, class + 1) of the tokens; ``masks`` (T, N, h, w)
        their probabilities at the network's resolution.
    """
    probabilities = logits.float().sigmoid()
    scores, classes = probabilities.max(-1)
    confident = scores >= thresholds.classes
    grid = _pixel_grid(valid, size).to(masks.device)
    sem_seg = torch.zeros((len(masks), *size), dtype=torch.uint8, device=masks.device)
    foreground = torch.zeros((len(masks), *size), device=masks.device)
    for frame, tokens in enumerate(confident):
        if not tokens.any():
            continue
        # Only confident tokens are brought to full size, and only their pixels get class scores.
        maps = F.grid_sample(
            masks[frame, tokens].float()[None], grid, align_corners=False, padding_mode="border"
        )[0].sigmoid()
        taking_part = maps > thresholds.mask
        pixels = taking_part.any(0)
        weights = (maps * taking_part)[:, pixels]  # (n, P)
        labels = (weights.t() @ probabilities[frame, tokens]).argmax(-1) + 1
        if background_class is not None:
            labels[labels == background_class + 1] = 0
            maps = maps * (classes[frame, tokens] != background_class)[:, None, None]
        sem_seg[frame, pixels] = labels.to(torch.uint8)
        foreground[frame] = maps.amax(0)
    foreground = torch.where(sem_seg > 0, foreground, foreground.clamp(max=thresholds.mask))
    return {
        "sem_seg": sem_seg,
        "foreground": foreground,
        "scores": scores,
        "classes": classes + 1,
        "masks": masks.float().sigmoid(),
    }


def _pixel_grid(valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the pixels of the result lie in the padded frame, (1, H, W, 2), x and y in [-1, 1]."""
    rows, columns = [
        2 * fraction * (torch.arange(length) + 0.5) / length - 1
        for fraction, length in zip(valid, size)
    ]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1)[None]
