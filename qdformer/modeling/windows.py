"""Clips of any length in bounded memory: windows over time, and their results as one."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Window:
    """Some frames of a clip that are segmented together.

    Attributes:
        seen: the frames that go through the network.
        kept: those whose result counts; the others are there for their context.
    """

    seen: range
    kept: range

    def cut(self, clip: dict[str, Any]) -> dict[str, Any]:
        """The mapper output ``clip`` with the frames and the sound of this window only."""
        frames = slice(self.seen.start, self.seen.stop)
        part = {**clip, "image": clip["image"][frames], "audio": clip["audio"][frames]}
        if "separated_audio" in clip:
            part["separated_audio"] = clip["separated_audio"][:, frames]
        return part


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """Cover a clip with as few windows as it takes, all of one length, evenly spread.

    Neighbours share frames. Each of them gives the result of its own half of what they share, where
    it has more context.

    Args:
        length: T, frames of the clip.
        size: the most frames of a window.
        overlap: frames that two neighbours share, at least; below ``size``.

    Returns:
        Windows in order of time, whose ``kept`` frames are each frame of the clip once; a single
        one if the clip fits it.
    """
    count = max(1, math.ceil((length - overlap) / (size - overlap)))
    size = math.ceil((length + (count - 1) * overlap) / count)
    starts = [index * (length - size) // max(count - 1, 1) for index in range(count)]
    cuts = [(left + size + right) // 2 for left, right in zip(starts, starts[1:])]
    return [
        Window(seen=range(start, start + size), kept=range(first, last))
        for start, first, last in zip(starts, [0, *cuts], [*cuts, length])
    ]


def segment_windows(
    segment: Callable[[dict[str, Any]], dict[str, Any]],
    clip: dict[str, Any],
    size: int,
    overlap: int,
) -> dict[str, Any]:
    """Segment a clip window by window, see :func:`windows` and :func:`join`.

    Args:
        segment: a mapper output of at most ``size`` frames to its result.
        clip: a mapper output of any length.
        size: the most frames of a window.
        overlap: frames that two neighbours share, at least.
    """
    parts = windows(len(clip["image"]), size, overlap)
    return join((window, segment(window.cut(clip))) for window in parts)


def join(results: Iterable[tuple[Window, dict[str, Any]]]) -> dict[str, Any]:
    """One result of a clip out of those of its windows, on the CPU: it may be long.

    Args:
        results: the windows in order of time, each with what the network said of the frames that it
            saw: entries by frame, or None. They are asked for one by one and not kept.
    """
    joined: dict[str, Any] = {}
    parts: dict[str, list] = {}
    for window, result in results:
        frames = slice(window.kept.start - window.seen.start, window.kept.stop - window.seen.start)
        for key, values in result.items():
            # A copy, so that the frames that are not kept can go.
            kept = None if values is None else values[frames].to("cpu", copy=True)
            parts.setdefault(key, []).append(kept)
    for key in list(parts):
        values = parts.pop(key)
        joined[key] = None if values[0] is None else torch.cat(values)
    return joined
