"""Region similarity J and boundary F of the DAVIS benchmark (Perazzi et al., CVPR 2016)."""

import functools
import math
from collections.abc import Sequence

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
    pred_boundary, gt_boundary = _boundary(pred[window]), _boundary(gt[window])
    pred_length, gt_length = np.count_nonzero(pred_boundary), np.count_nonzero(gt_boundary)
    if pred_length == 0 or gt_length == 0:
        return float(pred_length == gt_length)

    precision = np.count_nonzero(_near(gt_boundary, radius) & pred_boundary) / pred_length
    recall = np.count_nonzero(_near(pred_boundary, radius) & gt_boundary) / gt_length
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def davis_statistics(values: Sequence[float]) -> tuple[float, float, float]:
    """Statistics that DAVIS reports of one sequence's J or F values.

    Args:
        values: one value in [0, 1] a frame, in the order of time; at least one.

    Returns:
        Mean; recall, the share of frames above (not at) 0.5; decay, the mean of the first quarter
        less that of the last. Neighbouring quarters share the frame at their edge.
    """
    values = np.asarray(values, dtype=np.float64)
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return values.mean().item(), (values > 0.5).mean().item(), (first.mean() - last.mean()).item()


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """The bounding box of a mask with one pixel around it, as far as the image reaches.

    Boundaries inside the window are those of the whole image: where the window ends before the
    image does, its outermost pixels are background.
    """

    def span(occupied: np.ndarray) -> slice:
        where = np.flatnonzero(occupied)
        return slice(max(where[0] - 1, 0), where[-1] + 2) if where.size else slice(0, 0)

    return span(mask.any(axis=1)), span(mask.any(axis=0))


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of a (H, W) mask that differ from the east, south or south-east neighbour."""
    boundary = np.zeros_like(mask)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def _near(boundary: np.ndarray, radius: float) -> np.ndarray:
    """Pixels within ``radius`` (Euclidean) of a boundary: its dilation with a disk."""
    return cv2.dilate(boundary.astype(np.uint8), _disk(radius)).astype(bool)


@functools.cache
def _disk(radius: float) -> np.ndarray:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (y**2 + x**2 <= radius**2).astype(np.uint8)
