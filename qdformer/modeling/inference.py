"""Label maps out of token masks and class probabilities (appendix D, Eq. 1)."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from qdformer.layers.mask_sampling import pixel_grid


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
        their probabilities at the network's resolution; ``class_scores`` (T, num_classes) the
        highest probability that a token gives each class.
    """
    # A class or a mask that is not a number is an unlikely one.
    probabilities = logits.float().sigmoid().nan_to_num(0)
    scores, classes = probabilities.max(-1)
    device = masks.device
    grid = pixel_grid(valid, size).to(device, non_blocking=True)
    sem_seg = torch.zeros((len(masks), *size), dtype=torch.uint8, device=device)
    foreground = torch.zeros((len(masks), *size), device=device)
    # Which tokens and classes can matter is decided on the host, in one transfer for all frames.
    for frame, likely in enumerate(probabilities.cpu()):
        tokens = (likely.amax(-1) >= thresholds.classes).nonzero().flatten()
        if not len(tokens):
            continue
        contending = contending_classes(likely[tokens])
        labels = contending + 1
        if background_class is not None:
            labels[contending == background_class] = 0
        likely, tokens, labels = (
            values.to(device, non_blocking=True)
            for values in (likely[tokens][:, contending], tokens, labels)
        )
        # Only confident tokens are brought to full size, and only classes that can win compete.
        maps = masks[frame, tokens].float().nan_to_num_(-1e4)[None]
        maps = F.grid_sample(maps, grid, align_corners=False, padding_mode="border")[0].sigmoid()
        weights = maps * (maps > thresholds.mask)
        sums = weights.new_zeros((len(labels), *size))
        # Not a matrix product, which rounds as threads and sizes have it and so decides ties.
        for probability, weight in zip(likely, weights):
            sums.addcmul_(probability[:, None, None], weight)
        sem_seg[frame] = labels[sums.argmax(0)] * weights.any(0)
        if background_class is not None:
            maps = maps * (classes[frame, tokens] != background_class)[:, None, None]
        foreground[frame] = maps.amax(0)
    foreground = torch.where(sem_seg > 0, foreground, foreground.clamp(max=thresholds.mask))
    return {
        "sem_seg": sem_seg,
        "foreground": foreground,
        "scores": scores,
        "classes": classes + 1,
        "masks": masks.float().sigmoid().nan_to_num_(0),
        "class_scores": probabilities.amax(1),
    }


def contending_classes(probabilities: Tensor) -> Tensor:
    """The classes that can have the largest sum over tokens of P_i[C] M_i, whatever the masks.

    A class loses everywhere against one that is at least as probable for each of the tokens. Of
    dozens of classes few are left, so that no map is needed for each of them.

    Args:
        probabilities: (N, num_classes).

    Returns:
        (classes,) int64, in ascending order, at least one.
    """
    first, second = probabilities[:, :, None], probabilities[:, None]
    beaten = (first <= second).all(0)  # (c, d): d is at least as probable for each token
    # Of classes that are alike, the first one stays.
    order = torch.arange(len(beaten), device=beaten.device)
    beaten &= ~beaten.t() | (order < order[:, None])
    return (~beaten.any(1)).nonzero().flatten()
