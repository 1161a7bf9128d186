"""Clips of any length in bounded memory: windows over time, and their results as one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

Frame = TypeVar("Frame")


def windows(
    frames: Iterable[Frame], size: int, overlap: int
) -> Iterator[tuple[list[Frame], slice]]:
    """Cover a clip, whose end need not be known yet, with windows that are segmented one by one.

    Neighbors share frames. Each of them answers for its own half of what they share, where it has
    more context; the last window begins early enough to be as long as the others.

    Args:
        frames: T frames, of which one more than a window is asked for before it is given.
        size: the most frames of a window.
        overlap: frames that two neighbors share, at least; below ``size``.

    Yields:
        The frames that go through the network together, and which of them the window answers for.
        Over all windows that is each frame once, in order; a clip that fits is a single window.
    """
    recent: deque[Frame] = deque(maxlen=size)
    answered, end, length = 0, size, 0
    for frame in frames:
        if length == end:
            stop = end - overlap // 2
            yield list(recent), slice(answered - end + size, stop - end + size)
            answered, end = stop, end + size - overlap
        recent.append(frame)
        length += 1
    if recent:
        yield list(recent), slice(answered - length + len(recent), len(recent))


def sliding_window(
    segment: Callable[[dict[str, Any]], dict[str, Any]],
    clip: dict[str, Any],
    size: int,
    overlap: int,
) -> dict[str, Any]:
    """Segment a clip window by window, see :func:`windows` and :func:`merge`.

    Args:
        segment: a mapper output of at most ``size`` frames to its result.
        clip: a mapper output of any length.
        size: the most frames of a window.
        overlap: frames that two neighbors share, at least.
    """
    parts = windows(range(len(clip["image"])), size, overlap)
    return merge((segment(slice_clip(clip, seen[0], seen[-1] + 1)), kept) for seen, kept in parts)


def slice_clip(clip: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The mapper output ``clip`` with the frames and the sound of [start, stop) only."""
    frames = slice(start, stop)
    part = {**clip, "image": clip["image"][frames], "audio": clip["audio"][frames]}
    if "separated_audio" in clip:
        part["separated_audio"] = clip["separated_audio"][:, frames]
    return part


def merge(results: Iterable[tuple[dict[str, Any], slice]]) -> dict[str, Any]:
    """One result of a clip out of those of its windows, on the CPU: it may be long.

    Args:
        results: in order of time, what the network said of each window's frames, entries by frame
            or None, and which frames count. They are asked for one by one and not kept.
    """
    merged: dict[str, Any] = {}
    parts: dict[str, list] = {}
    for result, kept in results:
        for key, values in result.items():
            # A copy, so that the frames that are not kept can go.
            of_window = None if values is None else values[kept].to("cpu", copy=True)
            parts.setdefault(key, []).append(of_window)
    for key in list(parts):
        values = parts.pop(key)
        merged[key] = None if values[0] is None else torch.cat(values)
    return merged
