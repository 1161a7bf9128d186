"""The metrics that AVSBench's own scripts report (Zhou et al., ECCV 2022 and IJCV 2024).

Its "mIoU" and "F" share only the names with the segmentation mIoU and with DAVIS's boundary F.
"""

import math
from statistics import fmean

import cv2
import numpy as np

from qdformer.evaluation.confusion import f_measure, ratio, same_shape

# AVSBench's linspace(0, 1 - 1e-10, 255) is single precision, where it ends at exactly 1.
_THRESHOLDS = np.linspace(0, 1, 255, dtype=np.float32)
# OpenCV looks up faster than numpy, in tables of 256 entries.
_THRESHOLD_TABLE = np.pad(_THRESHOLDS, (0, 1))


def avsbench_frame_iou(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """AVSBench's IoU of each frame, which is not DAVIS's J where nothing sounds.

    Args:
        pred: predicted masks, (F, H, W) bool.
        gt: ground-truth masks, (F, H, W) bool.

    Returns:
        (F,) float64: tp / (union + 1e-7), or for a frame with empty ground truth the share of its
        pixels that are predicted as background.

    Raises:
        ValueError: if shapes differ.
    """
    hits, true, predicted = _pixels(pred, gt)
    union = true + predicted - hits
    size = math.prod(gt.shape[1:])
    return np.where(true > 0, hits / (union + 1e-7), (size - union) / size)


def region_f(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """AVSBench's F (beta^2 = 0.3) of each frame for given masks, without a threshold sweep.

    Args:
        pred: predicted masks, (F, H, W) bool.
        gt: ground-truth masks, (F, H, W) bool.

    Returns:
        (F,) float64 in [0, 1]; NaN for frames with empty ground truth, which AVSBench skips.

    Raises:
        ValueError: if shapes differ.
    """
    hits, true, predicted = _pixels(pred, gt)
    return np.where(true > 0, f_measure(hits, true, predicted), np.nan)


def avsbench_f_curves(prob: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """F (beta^2 = 0.3) of each frame at AVSBench's 255 thresholds from 0 to 1, mask = prob >= t.

    One histogram a frame takes the place of 255 comparisons of images.

    Args:
        prob: foreground probability, (F, H, W) in [0, 1]; compared in single precision.
        gt: ground-truth masks, (F, H, W) bool.

    Returns:
        (F, 255) float64 in [0, 1]; rows of NaN for frames with empty ground truth.

    Raises:
        ValueError: if shapes differ.
    """
    prob, gt = same_shape(np.asarray(prob, dtype=np.float32), np.asarray(gt, dtype=bool))
    curves = np.full((len(gt), len(_THRESHOLDS)), np.nan)
    for curve, frame_prob, frame_gt in zip(curves, prob, gt, strict=True):
        if frame_gt.any():
            index = _passed(frame_prob) + 256 * frame_gt.astype(np.uint16)
            histogram = np.bincount(index.reshape(-1), minlength=512)
            false, hits = histogram.reshape(2, 256)[:, :0:-1].cumsum(axis=1)[:, ::-1]
            curve[:] = f_measure(hits, np.array(np.count_nonzero(frame_gt)), false + hits)
    return curves


def avsbench_class_sums(
    hits: np.ndarray, true: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Sums over frames that AVSBench's semantic metrics are made of, in whatever order these come.

    Args:
        hits: right pixels of each class in each frame, (F, C) integers.
        true: pixels of the class, of the same shape.
        predicted: pixels that the class was given to, of the same shape.

    Returns:
        Sum of the IoU and of the F (beta^2 = 0.3), both (C,) float64, and in how many frames each
        class is predicted or true, (C,) int64.
    """
    union = true + predicted - hits
    scores = np.nan_to_num([ratio(hits, union), f_measure(hits, true, predicted)])
    iou, fscore = (np.array([math.fsum(frames) for frames in score.T]) for score in scores)
    return iou, fscore, (union > 0).sum(axis=0)


def avsbench_class_mean(total: np.ndarray, count: np.ndarray) -> float:
    """Mean over all classes of total / count, both (C,); a class never counted gives 0."""
    return fmean(np.nan_to_num(ratio(total, count)))


def _pixels(pred: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, ...]:
    """Right, true and predicted pixels of each frame, (F,) int64, of (F, H, W) masks."""
    pred, gt = same_shape(np.asarray(pred, dtype=bool), np.asarray(gt, dtype=bool))
    # Counting all of an array is many times faster than counting along axes.
    counts = [[np.count_nonzero(mask) for mask in (p & g, g, p)] for p, g in zip(pred, gt)]
    return tuple(np.array(counts, dtype=np.int64).reshape(-1, 3).T)


def _passed(prob: np.ndarray) -> np.ndarray:
    """How many of the thresholds each pixel of a (H, W) float32 image reaches, uint16.

    The thresholds are equally spaced, so all below the nearest are reached and none above it is;
    the nearest itself is compared. Halfway between two, where rounding decides, either serves.
    """
    nearest = np.rint(prob * np.float32(254)).clip(0, 254).astype(np.uint8)
    return nearest + (prob >= cv2.LUT(nearest, _THRESHOLD_TABLE)).astype(np.uint16)
