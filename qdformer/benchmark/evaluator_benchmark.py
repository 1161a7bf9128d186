"""How fast predictions are scored."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from qdformer.benchmark.blobs import moving_blobs
from qdformer.benchmark.options import BenchmarkOptions
from qdformer.benchmark.timing import FEW_REPEATS, FEW_WARMUP, CPUClock, spread, time_in_turn
from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator
from qdformer.evaluation.metrics import boundary_f

SIZES = ((224, 224), (720, 1280))
"""Height and width: AVSBench's frames and a camera's."""

FRAMES, OBJECTS = 10, 3

_CLASSES = 70
_BLUR = 0.01


def measure_evaluators(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Frames a second of the evaluators' ``process``, files included, and of boundary F alone.

    Args:
        cfg: not read; a measure's place is the same everywhere.
        options: how often each is timed (at most 3 times).

    Yields:
        For each size, as "width x height", the spread of frames/s of ``avs_object``,
        ``avs_semantic`` and ``boundary_f``.
    """
    result: dict[str, Any] = {}
    for size in SIZES:
        name = f"{size[1]} x {size[0]}"
        with tempfile.TemporaryDirectory() as folder:
            runs = _runs(*scored_clip(Path(folder), size))
            repeats = min(options.repeats, FEW_REPEATS)
            seconds = time_in_turn(runs, CPUClock(), repeats, f"evaluators, {name}", FEW_WARMUP)
        result[name] = {
            key: spread([FRAMES / lap for lap in laps]) for key, laps in seconds.items()
        }
        yield result


def scored_clip(folder: Path, size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A clip with ground truth in files, and a prediction that is nearly right.

    Args:
        folder: for the files.
        size: height and width, pixels.

    Returns:
        What the evaluators read of a mapper output, with ``gt`` (T, H, W) bool, and a model's
        output: shapes a little out of place, one of them with another object's class.
    """
    rng = np.random.default_rng(0)
    masks = moving_blobs(rng, FRAMES, OBJECTS, size)
    classes = rng.permutation(_CLASSES)[:OBJECTS] + 1
    shift = tuple(-(-side // 50) for side in size)
    labels = _paint(masks, classes)
    predicted = _paint(np.roll(masks, shift, axis=(-2, -1)), [*classes[:-1], classes[0]])
    sigma = _BLUR * max(size)
    foreground = [cv2.GaussianBlur((p > 0).astype(np.float32), (0, 0), sigma) for p in predicted]
    files = [str(folder / f"{t}.png") for t in range(FRAMES)]
    for file, label_map in zip(files, labels):
        cv2.imwrite(file, label_map)
    clip = {
        "video_id": "0",
        "sem_seg_file_names": files,
        "label_format": "index",
        "gt": labels > 0,
    }
    output = {
        "sem_seg": torch.from_numpy(predicted),
        "foreground": torch.from_numpy(np.stack(foreground)).clamp(0, 1),
    }
    return clip, output


def _runs(clip: dict[str, Any], output: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    objects = AVSObjectEvaluator("avsbench_ms3_test")
    semantics = AVSSemanticEvaluator("avsbench_avss_test")
    pairs = list(zip(output["sem_seg"].numpy() > 0, clip["gt"]))
    return {
        "avs_object": lambda: objects.process([clip], [output]),
        "avs_semantic": lambda: semantics.process([clip], [output]),
        "boundary_f": lambda: [boundary_f(pred, gt) for pred, gt in pairs],
    }


def _paint(masks: np.ndarray, classes) -> np.ndarray:
    """Label maps (T, H, W) uint8 of (T, M, H, W) masks; later objects cover earlier ones."""
    labels = np.zeros((len(masks), *masks.shape[-2:]), dtype=np.uint8)
    for index, label in enumerate(classes):
        labels[masks[:, index]] = label
    return labels
