"""From a video of an archive to the windows that the network takes; needs no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from qdformer.archive.items import Item
from qdformer.errors import InputError, one_line_message
from qdformer.predictor import windows_of
from qdformer.video.reader import VideoFile


@dataclass(frozen=True)
class Video:
    """What a file says of itself.

    Attributes:
        height, width: pixels.
        seconds: that it claims to last; None where it does not.
        has_sound: whether a track of sound can be decoded.
    """

    height: int
    width: int
    seconds: float | None
    has_sound: bool


@dataclass(frozen=True)
class WindowOfItem:
    """A window of one of the videos, in arrays, so that it travels between processes.

    Attributes:
        item: the video's number.
        number: the window's, from 0 on.
        last: whether no other follows.
        clip: what the network takes.
        kept: the frames that this window answers for, from the first to before the last.
        first: number of the window's first frame in the video.
        video: what the file says of itself.
    """

    item: int
    number: int
    last: bool
    clip: dict[str, Any]
    kept: tuple[int, int]
    first: int
    video: Video


@dataclass(frozen=True)
class Failure:
    """A video that could not be read or segmented, and why, in one sentence."""

    item: int
    error: str


def read_item(
    number: int, item: Item, cfg: CfgNode, every: float
) -> Iterator[WindowOfItem | Failure]:
    """Decode a video.

    Args:
        number: of the item.
        item: the video.
        cfg: of the model.
        every: seconds between segmented frames.

    Yields:
        Its windows, or after some of them, or none, why there are no more.
    """
    try:
        yield from _read(number, item, cfg, every)
    except Exception as error:  # whatever a video does to a decoder, the others go on
        yield Failure(number, reason(item, error))


def _read(number: int, item: Item, cfg: CfgNode, every: float) -> Iterator[WindowOfItem]:
    file = VideoFile(item.open())
    video = Video(file.height, file.width, file.duration, file.sound_track is not None)
    windows = windows_of(file.sampled(every), file.sound(), every, cfg)
    window = next(windows, None)
    if window is None:
        raise InputError("has no picture that can be decoded")
    count = 0
    while window is not None:
        following = next(windows, None)
        clip = {
            key: value.numpy() if isinstance(value, torch.Tensor) else value
            for key, value in window.clip.items()
        }
        kept = (window.kept.start, window.kept.stop)
        yield WindowOfItem(number, count, following is None, clip, kept, window.first, video)
        window, count = following, count + 1


def clip_of(window: WindowOfItem) -> dict[str, Any]:
    """The network's own input, in tensors."""
    return {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in window.clip.items()
    }


def reason(item: Item, error: BaseException) -> str:
    """Why a video could not be used, in one sentence that names it."""
    if isinstance(error, InputError):
        text = one_line_message(error)
        return text if item.name in text else f"{item.name}: {text}"
    told = " ".join(str(error).split())[:300]
    return f"{item.name}: {type(error).__name__}: {told}"
