"""What the network says of windows of many videos, as rows of the archive's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from qdformer.archive.reading import Failure, Video, WindowOfItem, clip_of
from qdformer.predictor import AudioVisualPredictor


@dataclass(frozen=True)
class Part:
    """The frames that a window answers for.

    Attributes:
        item: the video's number.
        number: the window's, from 0 on.
        last: whether no other follows.
        frames: as the table has them, see :mod:`.tables`.
        video: what the file says of itself.
    """

    item: int
    number: int
    last: bool
    frames: list[dict[str, Any]]
    video: Video


def segment_windows(
    predictor: AudioVisualPredictor, windows: Sequence[WindowOfItem], every: float
) -> list[Part | Failure]:
    """Segment windows of whatever videos in one pass.

    Args:
        predictor: the model.
        windows: in any order.
        every: seconds between frames.

    Returns:
        What came of each window.
    """
    with torch.no_grad():
        try:
            results = predictor.model([clip_of(window) for window in windows])
        except Exception as error:
            if len(windows) > 1:  # whose fault it is, each has to show
                return [
                    part for each in windows for part in segment_windows(predictor, [each], every)
                ]
            told = " ".join(str(error).split())[:300]
            return [Failure(windows[0].item, f"not segmented ({type(error).__name__}: {told})")]
    names = predictor.metadata.stuff_classes
    return [
        Part(
            window.item,
            window.number,
            window.last,
            [
                _frame(
                    {key: values if values is None else values[index].cpu()
                     for key, values in result.items()},
                    (window.first + index) * every,
                    every,
                    names,
                )
                for index in range(*window.kept)
            ],
            window.video,
        )
        for window, result in zip(windows, results, strict=True)
    ]  # fmt: skip


def _frame(
    result: dict[str, Tensor | None], begin: float, every: float, names: Sequence[str]
) -> dict[str, Any]:
    label_map, scores = result["sem_seg"], result["class_scores"]
    assert label_map is not None and scores is not None
    objects = []
    for label in map(int, label_map.unique()):
        if not label:
            continue
        mask = np.asfortranarray((label_map == label).numpy().astype(np.uint8))
        objects.append(
            {
                "label": label,
                "class": names[label],
                "score": float(scores[label - 1]),
                "mask": coco_mask.encode(mask)["counts"],
            }
        )
    return {
        "begin": begin,
        "end": begin + every,
        "objects": objects,
        **{key: _numbers(result[key]) for key in ("local_codes", "global_codes")},
    }


def _numbers(codes: Tensor | None) -> list[int] | None:
    return None if codes is None else codes.tolist()
