"""Predictions of a test set as picture files, ours or another method's."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from qdformer.errors import InputError, make_folder
from qdformer.evaluation.registry import find_evaluator
from qdformer.io.image import read_brightness, read_label_map, read_size, write_image
from qdformer.io.last_number import last_number

logger = logging.getLogger(__name__)


class PredictionWriter(DatasetEvaluator):
    """Writes a test set's masks as AVSBench's code names them: ``<video_id>/<name>_<t>.png``.

    ``name`` is the last part of ``video_id`` and ``t`` counts a clip's frames from 0. Of AVS-Object
    a file holds 255 where something sounds; of AVSS the class of each pixel, 0 for background.
    """

    def __init__(self, dataset_name: str, folder: str | Path):
        """
        Args:
            dataset_name: a registered data set.
            folder: for the files; is made.

        Raises:
            InputError: it cannot be written.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._folder = Path(folder)
        make_folder(self._folder, f"the folder of predictions {folder}")

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Write the clips; read is ``sem_seg`` (T, H, W) of each output."""
        for clip, output in zip(inputs, outputs, strict=True):
            video_id = clip["video_id"]
            folder = self._folder / video_id
            folder.mkdir(parents=True, exist_ok=True)
            for t, labels in enumerate(output["sem_seg"].cpu().numpy().astype(np.uint8)):
                picture = labels if _has_classes(self._metadata) else 255 * (labels > 0)
                write_image(folder / f"{Path(video_id).name}_{t}.png", picture.astype(np.uint8))


def score_predictions(
    dataset_name: str, folder: str | Path, output_dir: str | None = None
) -> dict[str, dict[str, float]] | None:
    """Score a folder of predictions with all the metrics of a data set.

    Args:
        dataset_name: a registered data set.
        folder: with a folder ``<video_id>`` for each clip, or ``<name>`` alone, whose pngs are the
            frames in the order of the last number in their names. AVS-Object: bright where
            something sounds, and gray for how sure that is. AVSS: the class of each pixel as gray
            value or palette index, or in the data set's colors. Other sizes are brought to that of
            the ground truth.
        output_dir: folder for the result as JSON; by default nothing is written.

    Returns:
        See :meth:`~.clip_evaluation.ClipEvaluator.evaluate`.

    Raises:
        InputError: a clip or a frame is missing, or a file cannot be read.
    """
    evaluator = find_evaluator(dataset_name)(dataset_name, output_dir)
    metadata = MetadataCatalog.get(dataset_name)
    resized = 0
    for record in DatasetCatalog.get(dataset_name):
        output, changed = _read(record, Path(folder), metadata)
        resized += changed
        evaluator.process([record], [output])
    if resized:
        logger.warning(
            "%s: %d frames have another size than their ground truth, and were resized.",
            folder,
            resized,
        )
    return evaluator.evaluate()


def _read(
    record: dict[str, Any], folder: Path, metadata: Metadata
) -> tuple[dict[str, torch.Tensor], int]:
    """What a model would have said of a clip, and how many frames were resized for it."""
    files = _files(folder, record["video_id"])
    if len(files) != len(record["file_names"]):
        raise InputError(
            f"{folder}: has {len(files)} pngs for {record['video_id']}, which has "
            f"{len(record['file_names'])} frames; save one for each"
        )
    labels, foregrounds, resized = [], [], 0
    for file, frame in zip(files, record["file_names"]):
        height, width = read_size(frame)
        if _has_classes(metadata):
            label_map = _read_classes(file, metadata)
            foreground = (label_map > 0).astype(np.float32)
        else:
            foreground = np.float32(1 / 255) * read_brightness(file)
            label_map = (foreground > 0.5).astype(np.uint8)
        if label_map.shape != (height, width):
            resized += 1
            label_map = cv2.resize(label_map, (width, height), interpolation=cv2.INTER_NEAREST)
            foreground = cv2.resize(foreground, (width, height), interpolation=cv2.INTER_NEAREST)
        labels.append(label_map)
        foregrounds.append(foreground)
    return {
        "sem_seg": torch.from_numpy(np.stack(labels)),
        "foreground": torch.from_numpy(np.stack(foregrounds)),
    }, resized


def _files(folder: Path, video_id: str) -> list[Path]:
    for name in (video_id, Path(video_id).name):
        if (folder / name).is_dir():
            return sorted((folder / name).glob("*.png"), key=_number)
    raise InputError(
        f"{folder}: has no folder {video_id}; give one a clip, with a png for each frame"
    )


def _number(path: Path) -> int:
    number = last_number(path.stem)
    if number is None:
        raise InputError(f"{path}: has no number in its name, by which frames are put in order")
    return number


def _read_classes(path: Path, metadata: Metadata) -> np.ndarray:
    try:
        labels = read_label_map(path, "index")
    except InputError:
        # Not one channel: the data set's colors, then.
        labels = read_label_map(path, "palette", np.asarray(metadata.stuff_colors))
    unknown = labels[labels >= len(metadata.stuff_classes)]
    if unknown.size:
        raise InputError(
            f"{path}: label {unknown[0]}, but the data set has classes 0 to "
            f"{len(metadata.stuff_classes) - 1}; save these or the data set's colors"
        )
    return labels


def _has_classes(metadata: Metadata) -> bool:
    return len(metadata.stuff_classes) > 2
