"""Averages that AVSBench's scripts print, of the parts that the evaluators use."""

from statistics import fmean

import numpy as np

from qdformer.evaluation import metrics
from qdformer.evaluation.confusion import class_counts


def binary_iou(prob, gt, batch=None):
    """Means within and then over the batches that are handed in together."""
    return _over_batches(metrics.avsbench_frame_iou(np.asarray(prob) > 0.5, gt), batch, fmean)


def binary_f(prob, gt, batch=None):
    """The maximum of the mean curve within each batch, then the mean of these."""

    def best(curves):
        curves = curves[~np.isnan(curves[:, 0])]
        return max(fmean(frames) for frames in curves.T) if len(curves) else 0.0

    return _over_batches(metrics.avsbench_f_curves(prob, gt), batch, best)


def semantic(pred, gt, num_classes):
    """mIoU and F per frame and class, averaged over the frames of a class, then over classes."""
    frames = [metrics.confusion_matrix(*pair, num_classes) for pair in zip(pred, gt, strict=True)]
    iou, fscore, count = metrics.avsbench_class_sums(*class_counts(np.stack(frames)))
    return metrics.avsbench_class_mean(iou, count), metrics.avsbench_class_mean(fscore, count)


def _over_batches(frames, batch, reduce):
    step = batch or len(frames)
    return fmean(reduce(frames[i : i + step]) for i in range(0, len(frames), step))
