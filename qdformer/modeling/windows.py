"""Clips of any length in bounded memory: windows over time, and their results as one."""

import dataclasses
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
        return {**clip, "image": clip["image"][frames], "audio": clip["audio"][frames]}

    def trim(self, result: dict[str, Any]) -> dict[str, Any]:
        """What counts of the window's result, which has entries for each frame, or None."""
        frames = slice(self.kept.start - self.seen.start, self.kept.stop - self.seen.start)
        return {key: None if values is None else values[frames] for key, values in result.items()}


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """Cover a clip with windows of one size, of which neighbours share frames.

    Each of two neighbours gives the result of its own half of what they share, where it has more
    context. All frames of the last window are the clip's last ones, so that it is as long as the
    others.

    Args:
        length: T, frames of the clip.
        size: the most frames of a window.
        overlap: frames that two neighbours share, at least; below ``size``.

    Returns:
        Windows in order of time, whose ``kept`` frames are each frame of the clip once; a single
        one if the clip fits it.
    """
    starts = [*range(0, length - size, size - overlap), max(length - size, 0)]
    cuts = [(left + size + right) // 2 for left, right in zip(starts, starts[1:])]
    return [
        Window(seen=range(start, min(start + size, length)), kept=range(first, last))
        for start, first, last in zip(starts, [0, *cuts], [*cuts, length])
    ]


def join(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of one clip's windows after each other; the parts are taken out of ``results``."""
    joined = {}
    for key in list(results[0]):
        # One entry at a time: that of a long video is large.
        parts = [result.pop(key) for result in results]
        joined[key] = None if parts[0] is None else torch.cat(parts)
    return joined
