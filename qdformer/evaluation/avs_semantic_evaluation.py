"""Evaluation of AVS-Semantic (AVSS): a class for every pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qdformer.errors import InputError
from qdformer.evaluation import metrics
from qdformer.evaluation.clip_evaluation import AnnotatedFrame, ClipEvaluator
from qdformer.evaluation.confusion import class_counts
from qdformer.evaluation.registry import EVALUATOR_REGISTRY


@dataclass
class _SemanticScores:
    """One clip: the non-zero cells of its confusion matrix, and right, true and predicted pixels of
    each frame and class (3, T, C) for AVSBench's metrics.
    """

    cells: np.ndarray
    pixels: np.ndarray
    counts: np.ndarray

    @property
    def num_frames(self) -> int:
        return self.counts.shape[1]


@EVALUATOR_REGISTRY.register()
class AVSSemanticEvaluator(ClipEvaluator):
    """Data-set mIoU and IoU per class, and AVSBench's two metrics for AVSS beside them.

    Pixels marked as ignored are not counted. All in per cent:

    * ``mIoU``: one confusion matrix over all pixels of all annotated frames, mean IoU over the
      classes with ground truth, background included. Pixels wrongly given to a class without
      ground truth count as misses of their true class.
    * ``foreground_mIoU``: the same without background; NaN if no frame has foreground.
    * ``mIoU_absent_zero``: mean over all classes, where one without ground truth counts as 0. It
      equals ``mIoU`` on a split in which every class occurs.
    * ``pixel_accuracy``: share of all pixels whose class is right.
    * ``AVSBench_mIoU``, ``AVSBench_F``: IoU and region F (beta^2 = 0.3) per frame and class, mean
      over the frames in which the class is predicted or true, then over all classes (0 for one
      that is never seen). Not comparable with ``mIoU``.
    * ``foreground_share``: of all pixels, those in which something is segmented. Where nothing of
      what is seen sounds, it is AVSBench-Robust's false positive rate.
    * ``IoU_<class>`` of each class with ground truth.

    ``frames`` is the number of annotated frames. The JSON file adds the IoU of every class (null
    without ground truth) and the confusion matrix, rows true.
    """

    task = "avs_semantic"
    primary_metric = "mIoU"
    definition = (
        "mIoU is one confusion matrix over all frames, mean over the classes with ground truth; "
        "AVSBench_* average per frame and class, then over all classes."
    )

    def _score_clip(self, clip: dict, output: dict) -> _SemanticScores | None:
        frames = self._annotated_frames(clip, output)
        if not frames:
            return None
        confusions = np.stack([self._confusion(frame) for frame in frames])
        total = confusions.sum(axis=0).reshape(-1)
        cells = np.flatnonzero(total)
        return _SemanticScores(cells, total[cells], np.stack(class_counts(confusions)))

    def _summarize(
        self, clips: dict[str, _SemanticScores]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        names = self._metadata.stuff_classes
        scores = list(clips.values())
        confusion = np.zeros((len(names), len(names)), np.int64)
        for clip in scores:
            confusion.reshape(-1)[clip.cells] += clip.pixels
        if not confusion.any():
            raise InputError(
                f"{self._dataset_name}: every pixel of the ground truth is marked as ignored, so "
                "there is nothing to score; check the masks and the palette."
            )
        counts = np.concatenate([clip.counts for clip in scores], axis=1)
        iou_sum, f_sum, count = metrics.avsbench_class_sums(*counts)
        fractions = {
            "mIoU": metrics.mean_iou(confusion),
            "foreground_mIoU": metrics.mean_iou(confusion, background=False),
            "mIoU_absent_zero": metrics.mean_iou(confusion, absent="zero"),
            "pixel_accuracy": metrics.pixel_accuracy(confusion),
            "AVSBench_mIoU": metrics.avsbench_class_mean(iou_sum, count),
            "AVSBench_F": metrics.avsbench_class_mean(f_sum, count),
            "foreground_share": int(confusion[:, 1:].sum()) / int(confusion.sum()),
        }
        class_iou = {
            name: 100 * iou if has_gt else None
            for name, iou, has_gt in zip(
                names,
                metrics.iou_per_class(confusion).tolist(),
                np.any(confusion, axis=1).tolist(),
                strict=True,
            )
        }
        result = {name: 100 * value for name, value in fractions.items()}
        result.update({f"IoU_{name}": iou for name, iou in class_iou.items() if iou is not None})
        return result, {"iou_per_class": class_iou, "confusion": confusion.tolist()}

    def _confusion(self, frame: AnnotatedFrame) -> np.ndarray:
        ignore_label, num_classes = self._metadata.ignore_label, len(self._metadata.stuff_classes)
        try:
            return metrics.confusion_matrix(frame.pred, frame.gt, num_classes, ignore_label)
        except ValueError as error:
            raise InputError(
                f"{frame.file_name}: {error}, and {ignore_label} for ignored pixels; check the "
                f"classes of {self._dataset_name}."
            ) from error
