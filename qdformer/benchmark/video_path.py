"""What annotating a video takes: each part alone, and all of it as ``demo.py`` does it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.data.datasets.classes import BACKGROUND
from qdformer.data.datasets.registration import complete_metadata
from qdformer.demo.annotate import AnnotateOptions, annotate, overlaid
from qdformer.predictor import AudioVisualPredictor
from qdformer.video.reader import VideoFile
from qdformer.video.writer import write_video

RATE = 25
"""Pictures a second."""

WHOLE = "whole"

_PICTURES = 50  # other ones; then they come again
_STEP = 4  # pixels that a picture moves
_DATASET = "benchmark_video"


def video_runs(
    cfg: CfgNode, folder: Path, size: tuple[int, int], seconds: int
) -> dict[str, Callable[[], Any]]:
    """The parts of annotating a video with a network that was not trained, and the whole of it.

    Args:
        cfg: of the model.
        folder: for the video and what is made of it.
        size: (height, width) of the video, pixels.
        seconds: that it lasts.
    """
    path = folder / "video.mp4"
    noise = np.random.default_rng(0).normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32)
    write_video(path, _pictures(size, seconds), RATE, noise)
    predictor = _predictor(cfg, folder)
    frames, options = [*predictor(path)], AnnotateOptions()
    pictures = [*islice(VideoFile(path).pictures(), _PICTURES)]

    def drawn() -> Iterator[Any]:
        # So many pictures of every second, with that second's masks.
        for second, frame in enumerate(frames):
            some = islice(cycle(pictures), second * RATE, (second + 1) * RATE)
            yield from overlaid(some, iter([frame]), predictor.metadata, options)

    return {
        "decoding": lambda: _go_through(VideoFile(path).pictures()),
        "sound and network": lambda: _go_through(predictor(path)),
        "drawing": lambda: _go_through(drawn()),
        "encoding": lambda: write_video(folder / "again.mp4", _pictures(size, seconds), RATE),
        WHOLE: lambda: annotate(predictor, VideoFile(path), folder / "result", options),
    }


def _go_through(items: Iterable[Any]) -> None:
    deque(items, maxlen=0)


def _pictures(size: tuple[int, int], seconds: int) -> Iterator[np.ndarray]:
    """A blurred pattern that moves to the side."""
    pattern = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    pattern = cv2.GaussianBlur(pattern, (0, 0), 3)
    moved = [np.roll(pattern, _STEP * number, 1) for number in range(_PICTURES)]
    return islice(cycle(moved), seconds * RATE)


def _predictor(cfg: CfgNode, folder: Path) -> AudioVisualPredictor:
    classes = [f"class {label}" for label in range(1, cfg.MODEL.QDFORMER.NUM_CLASSES + 1)]
    MetadataCatalog.get(_DATASET).set(stuff_classes=[BACKGROUND, *classes])
    complete_metadata(_DATASET)
    torch.manual_seed(0)
    weights = folder / "weights.pth"
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.DATASETS.TEST = str(weights), (_DATASET,)
    # Whatever the network says is drawn.
    cfg.MODEL.QDFORMER.CLASS_THRESHOLD = 0.0
    return AudioVisualPredictor(cfg)
