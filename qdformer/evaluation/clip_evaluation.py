"""What the evaluators of clips share: reading ground truth, gathering, reporting."""

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from qdformer.errors import InputError
from qdformer.io.image import read_label_map

logger = logging.getLogger(__name__)


class AnnotatedFrame(NamedTuple):
    """One frame with ground truth.

    Attributes:
        file_name: the ground-truth file.
        pred: predicted label map, (H, W) uint8, 0 is background.
        foreground: probability that a pixel belongs to any sounding object, (H, W) in [0, 1].
        gt: true label map, (H, W) uint8.
    """

    file_name: str
    pred: np.ndarray
    foreground: np.ndarray
    gt: np.ndarray


class ClipEvaluator(DatasetEvaluator, ABC):
    """Scores clips one by one and puts the scores together at the end.

    Scores are kept by ``video_id``, so a clip that a sampler hands to two processes counts once.
    They are integers, quotients of integers and sums that are rounded once, so that the result is
    the same to the last bit for any batch size, order and number of processes.

    A subclass names its ``task`` (the key of its results) and ``definition`` (one sentence for the
    log) and implements :meth:`_score_clip` and :meth:`_summarize`.

    Args:
        dataset_name: a registered data set; its metadata has ``stuff_classes``, ``stuff_colors``
            and ``ignore_label``.
        output_dir: folder for the result as ``<dataset_name>_<task>.json``, made if needed; by
            default nothing is written.
    """

    task: str
    definition: str
    unit = "%"

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        self._dataset_name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        """Forget all clips."""
        self._clips: dict[str, Any] = {}

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Score the annotated frames of some clips.

        Args:
            inputs: clips as the mapper gives them; read are ``video_id``, ``sem_seg_file_names``
                (T paths, None where a frame is not annotated) and ``label_format``.
            outputs: one dict a clip with ``sem_seg``, a (T, H, W) integer label map, and
                ``foreground``, (T, H, W) in [0, 1].

        Raises:
            InputError: if a mask cannot be read, differs in size from the prediction, or holds a
                label that the data set does not have.
        """
        for clip, output in zip(inputs, outputs, strict=True):
            scores = self._score_clip(clip, output)
            if scores is not None:
                self._clips[clip["video_id"]] = scores

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Put the clips of all processes together.

        Returns:
            ``{task: {metric: value}}`` in per cent (``frames`` is a count); None off the main
            process.

        Raises:
            InputError: if no clip had an annotated frame.
        """
        gathered = comm.gather(self._clips)
        if not comm.is_main_process():
            return None
        merged = {video_id: scores for part in gathered for video_id, scores in part.items()}
        if not merged:
            raise InputError(
                f"{self._dataset_name}: none of the evaluated clips has an annotated frame, so "
                "there is nothing to score; evaluate a split that comes with masks."
            )
        clips = dict(sorted(merged.items()))
        metrics, details = self._summarize(clips)
        num_frames = sum(scores.num_frames for scores in clips.values())
        logger.info(
            "%s on %s, %d clips, %d annotated frames. %s\n%s",
            self.task,
            self._dataset_name,
            len(clips),
            num_frames,
            self.definition,
            _table(metrics, self.unit),
        )
        metrics["frames"] = float(num_frames)
        if self._output_dir is not None:
            self._write(metrics, {"clips": len(clips), "definition": self.definition, **details})
        return {self.task: metrics}

    @abstractmethod
    def _score_clip(self, clip: dict, output: dict) -> Any | None:
        """Scores of one clip: picklable, with an attribute ``num_frames``; None if it has none."""

    @abstractmethod
    def _summarize(self, clips: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics in per cent from the scores, sorted by video_id, and more for the JSON file."""

    def _annotated_frames(self, clip: dict, output: dict) -> list[AnnotatedFrame]:
        file_names = clip["sem_seg_file_names"]
        preds, foregrounds = (output[key].cpu().numpy() for key in ("sem_seg", "foreground"))
        frames = []
        for file_name, pred, foreground in zip(file_names, preds, foregrounds, strict=True):
            if file_name is None:
                continue
            gt = read_label_map(file_name, clip["label_format"], self._metadata.get("stuff_colors"))
            if gt.shape != pred.shape:
                raise InputError(
                    f"{file_name}: the mask is {_size(gt)} pixels but the prediction for its frame "
                    f"{_size(pred)}; masks must have the size of the frames."
                )
            frames.append(AnnotatedFrame(str(file_name), pred, foreground, gt))
        return frames

    def _write(self, metrics: dict[str, float], details: dict[str, Any]) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        result = {"dataset": self._dataset_name, "task": self.task, "metrics": numbers, **details}
        path = Path(self._output_dir or "", f"{self._dataset_name}_{self.task}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        logger.info("Wrote %s", path)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _table(metrics: dict[str, float], unit: str, columns: int = 4) -> str:
    cells = [cell for metric in metrics.items() for cell in metric]
    rows = [cells[i : i + 2 * columns] for i in range(0, len(cells), 2 * columns)]
    headers = ["metric", unit] * min(columns, len(metrics))
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".2f")
