"""Evaluation of AVS-Object (S4, MS3): one mask a frame for everything that sounds."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from qdformer.evaluation import metrics
from qdformer.evaluation.clip_evaluation import ClipEvaluator
from qdformer.evaluation.registry import EVALUATOR_REGISTRY


@dataclass
class _ObjectScores:
    """One clip: values of its annotated frames, and AVSBench's F and its curve (255,) of those in
    which something sounds.
    """

    region: list[float]
    boundary: list[float]
    avsbench_iou: list[float]
    avsbench_f: list[float]
    avsbench_curves: list[np.ndarray]
    pixels: list[tuple[int, int]]

    @property
    def num_frames(self) -> int:
        return len(self.region)


@EVALUATOR_REGISTRY.register()
class AVSObjectEvaluator(ClipEvaluator):
    """J, boundary F and J&F of DAVIS, and AVSBench's two binary metrics beside them.

    Every label but 0 is foreground, in the prediction as in the ground truth; pixels marked as
    ignored count as background in both. All in per cent:

    * ``J``, ``F``: DAVIS region similarity and boundary F (tolerance 0.8 % of the diagonal), mean
      over the clips of the mean over the clip's annotated frames; ``J&F`` is the mean of the two.
      ``J_recall``, ``F_recall``: share of frames above 0.5; ``J_decay``, ``F_decay``: first less
      last quarter of the clip; both again as means over clips.
    * ``AVSBench_mIoU``: mean over all frames of the IoU, where a frame in which nothing sounds
      scores its true-negative rate.
    * ``AVSBench_MaxF``: region F (beta^2 = 0.3) of ``foreground``, best of 255 thresholds on the
      mean curve of all frames in which something sounds. AVSBench's scripts take the maximum in
      each batch instead, a number that depends on the batch size.
    * ``AVSBench_F50``: the same F of ``sem_seg`` itself, without a sweep, mean over these frames.
    * ``foreground_share``: of all pixels, those in which something is segmented. Where nothing of
      what is seen sounds, it is AVSBench-Robust's false positive rate.

    The F of AVSBench are 0 where nothing sounds in any frame. ``frames`` is the number of annotated
    frames. The JSON file adds J and F of each clip.
    """

    task = "avs_object"
    primary_metric = "J&F"
    definition = (
        "J and F are DAVIS's (mean over clips of the mean over annotated frames); AVSBench_* are "
        "means over frames, F with beta^2 = 0.3, MaxF at the best of 255 thresholds for all frames."
    )

    def _score_clip(self, clip: dict, output: dict) -> _ObjectScores | None:
        scores = _ObjectScores([], [], [], [], [], [])
        for frame in self._annotated_frames(clip, output):
            counted = frame.gt != self._metadata.ignore_label
            gt, pred = (frame.gt > 0) & counted, (frame.pred > 0) & counted
            scores.pixels.append((int(pred.sum()), int(counted.sum())))
            scores.region.append(metrics.region_similarity(pred, gt))
            scores.boundary.append(metrics.boundary_f(pred, gt))
            scores.avsbench_iou += metrics.avsbench_frame_iou(pred[None], gt[None]).tolist()
            if gt.any():
                scores.avsbench_f += metrics.region_f(pred[None], gt[None]).tolist()
                prob = frame.foreground * counted
                scores.avsbench_curves += [*metrics.avsbench_f_curves(prob[None], gt[None])]
        return scores if scores.region else None

    def _summarize(
        self, clips: dict[str, _ObjectScores]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        scores = list(clips.values())
        region = [metrics.davis_statistics(clip.region) for clip in scores]
        boundary = [metrics.davis_statistics(clip.boundary) for clip in scores]
        j_mean, j_recall, j_decay = (fmean(values) for values in zip(*region, strict=True))
        f_mean, f_recall, f_decay = (fmean(values) for values in zip(*boundary, strict=True))
        iou = fmean(value for clip in scores for value in clip.avsbench_iou)
        fscores = [value for clip in scores for value in clip.avsbench_f]
        curves = [curve for clip in scores for curve in clip.avsbench_curves]
        best = max(map(math.fsum, zip(*curves, strict=True)), default=0.0)
        segmented, counted = (sum(n) for n in zip(*(n for clip in scores for n in clip.pixels)))
        fractions = {
            "J&F": (j_mean + f_mean) / 2,
            "J": j_mean,
            "F": f_mean,
            "J_recall": j_recall,
            "F_recall": f_recall,
            "J_decay": j_decay,
            "F_decay": f_decay,
            "AVSBench_mIoU": iou,
            "AVSBench_MaxF": best / max(len(fscores), 1),
            "AVSBench_F50": math.fsum(fscores) / max(len(fscores), 1),
            "foreground_share": segmented / max(counted, 1),
        }
        per_clip = {
            video_id: {"J": 100 * j, "F": 100 * f}
            for video_id, (j, *_), (f, *_) in zip(clips, region, boundary, strict=True)
        }
        return {name: 100 * value for name, value in fractions.items()}, {"per_clip": per_clip}
