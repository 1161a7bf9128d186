"""Segmentation metrics at data-set level: one confusion matrix, divided once at the end.

Counts are integers, so neither the order of the frames nor how they are spread over processes can
change a result.
"""

import math
from collections.abc import Sequence

import numpy as np


def confusion_matrix(
    pred: np.ndarray, gt: np.ndarray, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        pred: predicted class of each pixel, any shape, integers in [0, num_classes).
        gt: true class, the same shape; pixels of ``ignore_label`` are not counted.
        num_classes: number of classes, background included.
        ignore_label: the value in ``gt`` that takes no part.

    Returns:
        (num_classes, num_classes) int64, rows true, columns predicted. Matrices of different
        frames add up.

    Raises:
        ValueError: if shapes differ, or a counted pixel has a class outside the range.
    """
    pred, gt = same_shape(np.asarray(pred), np.asarray(gt))
    ignored = gt == ignore_label
    if ignored.any():
        pred, gt = pred[~ignored], gt[~ignored]
    for name, labels in (("prediction", pred), ("ground truth", gt)):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f"the {name} holds labels from {labels.min()} to {labels.max()}, "
                f"allowed are 0 to {num_classes - 1}"
            )
    # Indices of cells in the smallest type that holds them: 4 times less to move than int64.
    index = np.min_scalar_type(num_classes**2)
    cells = gt.astype(index) * index.type(num_classes) + pred.astype(index)
    cells = np.bincount(cells.reshape(-1), minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, TP / (GT + PRED - TP).

    Args:
        confusion: (C, C) counts, rows true.

    Returns:
        (C,) float64 in [0, 1]; 0 for a class that is predicted but has no ground truth, NaN for a
        class that is in neither.
    """
    hits, true, predicted = class_counts(confusion)
    return ratio(hits, true + predicted - hits)


def mean_iou(confusion: np.ndarray, absent: str = "exclude", background: bool = True) -> float:
    """Mean intersection over union of the classes, dataset level.

    Args:
        confusion: (C, C) counts of the whole data set, rows true.
        absent: what a class without ground truth does. "exclude": it is left out of the mean,
            whether it was predicted or not; pixels wrongly given to it still count as misses of
            their true class (``SemSegEvaluator`` of Detectron2's main branch). "zero": it counts
            as 0, whether it was predicted or not, so the mean is always over all C (CAVP, Chen
            et al., CVPR 2024). With ground truth for every class both agree.
        background: whether class 0 belongs to the mean.

    Returns:
        The mean in [0, 1], or NaN if no class remains.

    Raises:
        ValueError: if ``absent`` is neither word.
    """
    if absent not in ("exclude", "zero"):
        raise ValueError(f'absent is "{absent}", allowed are "exclude" and "zero"')
    averaged = np.asarray(confusion).sum(axis=1) > 0
    if absent == "zero":
        averaged[:] = True
    averaged[0] &= background
    return _mean(np.nan_to_num(iou_per_class(confusion))[averaged])


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of the counted pixels whose class is right, of (C, C) counts; NaN without any."""
    hits, true, _ = class_counts(confusion)
    return ratio(hits.sum(keepdims=True), true.sum(keepdims=True)).item()


def same_shape(pred: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hand both arrays back, or raise ``ValueError`` if their shapes differ."""
    if pred.shape != gt.shape:
        raise ValueError(f"the prediction's shape is {pred.shape}, the ground truth's {gt.shape}")
    return pred, gt


def class_counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, true and predicted pixels of each class, of (..., C, C) counts."""
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return hits, confusion.sum(axis=-1), confusion.sum(axis=-2)


def f_measure(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """1.3 P R / (0.3 P + R) with P = hits / predicted, R = hits / true; NaN if both are 0."""
    # As a quotient of integers, which is rounded once.
    return ratio(13 * hits, 3 * true + 10 * predicted)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise quotient, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(denominator) > 0, np.divide(numerator, denominator), np.nan)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if len(values) else math.nan
