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

    window = _window(pred | gt)
    boundaries = [_boundary(mask[window]) for mask in (pred, gt)]
    pred_length, gt_length = map(np.count_nonzero, boundaries)
    if pred_length == 0 or gt_length == 0:
        return float(pred_length == gt_length)

    reach = np.arange(-math.floor(radius), math.floor(radius) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
    near_pred, near_gt = (cv2.dilate(boundary, disk) for boundary in boundaries)
    pred_matched = np.count_nonzero(boundaries[0] & near_gt)
    gt_matched = np.count_nonzero(boundaries[1] & near_pred)
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


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their neighbor in the east, south or south-east, (H, W) uint8."""
    # What lies beyond the last row and column is what is in them.
    below, right = np.roll(mask, -1, 0), np.roll(mask, -1, 1)
    below[-1], right[:, -1] = mask[-1], mask[:, -1]
    diagonal = np.roll(below, -1, 1)
    diagonal[:, -1] = below[:, -1]
    return ((mask ^ right) | (mask ^ below) | (mask ^ diagonal)).view(np.uint8)
