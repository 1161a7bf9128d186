"""Segmentation metrics as pure functions of numpy arrays.

Names that look alike stand for different numbers in this field; the families are kept apart:

* ``davis``: region similarity J and boundary measure F of one mask.
* ``confusion``: one confusion matrix over all pixels of all frames, divided once at the end: the
  mIoU of semantic segmentation.
* ``avsbench``, binary: an IoU per frame that turns into the true-negative rate where nothing
  sounds, and a *region* F with beta^2 = 0.3, the best of 255 thresholds.
* ``avsbench``, semantic: IoU and F per frame and class, averaged over the frames in which the class
  is seen, then over all classes.

Values are fractions, not per cent.
"""

from qdformer.evaluation.avsbench import (
    avsbench_class_mean,
    avsbench_class_sums,
    avsbench_f_curves,
    avsbench_frame_iou,
    region_f,
)
from qdformer.evaluation.confusion import (
    confusion_matrix,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
)
from qdformer.evaluation.davis import boundary_f, davis_statistics, region_similarity

__all__ = [
    "avsbench_class_mean",
    "avsbench_class_sums",
    "avsbench_f_curves",
    "avsbench_frame_iou",
    "boundary_f",
    "confusion_matrix",
    "davis_statistics",
    "iou_per_class",
    "mean_iou",
    "pixel_accuracy",
    "region_f",
    "region_similarity",
]
