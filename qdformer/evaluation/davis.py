"""Region similarity J and boundary F of the DAVIS benchmark (Perazzi et al., CVPR 2016)."""

import math
from collections.abc import Sequence
from statistics import fmean

import cv2
import numpy as np

from qdformer.evaluation.confusion import same_shape


def region_similarity(pred: np.ndarray, gt: np.ndarray) -> float:
    """Region similarity J of DAVIS: intersection over union of two masks.

    Args:
        pred: predicted mask, (H, W) bool.
        gt: ground-truth mask, (H, W) bool.

    Returns:
        J in [0, 1]; 1 where both masks are empty.

    Raises:
        ValueError: if the masks differ in shape.
    """
    pred, gt = same_shape(np.asarray(pred, dtype=bool), np.asarray(gt, dtype=bool))
    union = np.count_nonzero(pred | gt)
    return np.count_nonzero(pred & gt) / union if union else 1.0


def boundary_f(pred: np.ndarray, gt: np.ndarray, bound_th: float = 0.008) -> float:
    """Boundary F-measure F of DAVIS: how well the two outlines agree, within a tolerance.

    P is the share of the prediction's boundary pixels with a boundary pixel of the ground truth
    within the tolerance (Euclidean distance), R the reverse, and F = 2PR / (P + R).

    Args:
        pred: predicted mask, (H, W) bool.
        gt: ground-truth mask, (H, W) bool.
        bound_th: tolerance as a fraction of the image diagonal, rounded up to whole pixels; from 1
            on it is taken as pixels.

    Returns:
        F in [0, 1]. 1 where neither mask has a boundary and 0 where only one has. A mask that
        fills the frame has none, so a full ground truth and an empty prediction score 1, as in
        DAVIS.

    Raises:
        ValueError: if the masks are not two-dimensional or differ in shape.
    """
    pred, gt = np.asarray(pred, dtype=bool), np.asarray(gt, dtype=bool)
    if pred.ndim != 2 or pred.shape != gt.shape:
        raise ValueError(f"expected two masks of one shape (H, W), got {pred.shape} and {gt.shape}")
    radius = bound_th if bound_th >= 1 else math.ceil(bound_th * math.hypot(*pred.shape))

    squared_radius = math.floor(radius**2)
    window = _window(pred | gt)
    masks = np.stack([pred[window], gt[window]])
    boundaries = _boundaries(_pack(masks, math.isqrt(squared_radius)), masks.shape[-1])
    pred_length, gt_length = map(_count, boundaries)
    if pred_length == 0 or gt_length == 0:
        return float(pred_length == gt_length)

    pred_matched, gt_matched = map(_count, boundaries & _near(boundaries, squared_radius)[::-1])
    # 2PR / (P + R) as a quotient of integers, which is rounded once.
    total = pred_matched * gt_length + gt_matched * pred_length
    return 2 * pred_matched * gt_matched / total if total else 0.0


def davis_statistics(values: Sequence[float]) -> tuple[float, float, float]:
    """Statistics that DAVIS reports of one sequence's J or F values.

    Args:
        values: one value in [0, 1] a frame, in the order of time; at least one.

    Returns:
        Mean; recall, the share of frames above (not at) 0.5; decay, the mean of the first quarter
        less that of the last. Neighboring quarters share the frame at their edge.
    """
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[: edges[1] + 1], values[edges[3] :]
    recall = sum(value > 0.5 for value in values) / len(values)
    return fmean(values), recall, fmean(first) - fmean(last)


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """The bounding box of a mask with one pixel around it, as far as the image reaches.

    Boundaries inside the window are those of the whole image: where the window ends before the
    image does, its outermost pixels are background.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _pack(masks: np.ndarray, margin: int) -> np.ndarray:
    """Masks (M, H, W) bool as bits: (M, H, words), bit k of a word i is pixel 64 i + k of its row.

    What moves masks sideways carries over into the next row, but at most into the empty pixels that
    end each row, ``margin`` or more.
    """
    *planes, width = masks.shape
    words = math.ceil((width + margin) / 64)
    padded = np.zeros((*planes, 64 * words), bool)
    padded[..., :width] = masks
    return np.packbits(padded, bitorder="little").view("<u8").reshape(*planes, words)


def _count(words: np.ndarray) -> int:
    return int(np.count_nonzero(np.unpackbits(words.view(np.uint8))))


def _east(words: np.ndarray, step: int) -> np.ndarray:
    """Packed masks moved ``step`` pixels to the east, 1 to 63."""
    line = words.reshape(-1)
    moved = line << step
    moved[1:] |= line[:-1] >> 64 - step
    return moved.reshape(words.shape)


def _west(words: np.ndarray, step: int) -> np.ndarray:
    """Packed masks moved ``step`` pixels to the west, 1 to 63."""
    line = words.reshape(-1)
    moved = line >> step
    moved[:-1] |= line[1:] << 64 - step
    return moved.reshape(words.shape)


def _boundaries(masks: np.ndarray, width: int) -> np.ndarray:
    """Pixels of packed masks of this width that differ from their neighbor in the east, south or
    south-east.
    """
    neighbors = _west(masks, 1)
    has_neighbor = np.packbits(np.arange(64 * masks.shape[-1]) < width - 1, bitorder="little").view(
        "<u8"
    )
    boundaries = masks ^ neighbors
    boundaries[:, :-1] |= masks[:, :-1] ^ neighbors[:, 1:]
    boundaries &= has_neighbor
    boundaries[:, :-1] |= masks[:, :-1] ^ masks[:, 1:]
    return boundaries


def _near(boundaries: np.ndarray, squared_radius: int) -> np.ndarray:
    """Pixels with a boundary pixel at most that far away: packed boundaries dilated with a disk.

    The disk is put together row by row from the outside: what its outer rows make is moved on by
    one row, up and down, and joined with the run of pixels that is the next row.
    """
    near, run, half_length = np.zeros_like(boundaries), boundaries, 0
    for row in range(math.isqrt(squared_radius), -1, -1):
        inner = near.copy()
        inner[:, 1:] |= near[:, :-1]
        inner[:, :-1] |= near[:, 1:]
        while half_length < (wanted := math.isqrt(squared_radius - row**2)):
            # Three copies of a run leave no gap as long as none is moved by more than its length.
            step = min(wanted - half_length, 2 * half_length + 1, 63)
            run, half_length = run | _east(run, step) | _west(run, step), half_length + step
        near = inner | run
    return near
