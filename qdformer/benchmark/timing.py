"""Times things in turn, so that whatever slows the machine down slows all of them down."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Protocol

import torch

from qdformer.progress import Progress

REFERENCE = "reference"
WARMUP = 2

FEW_REPEATS, FEW_WARMUP = 3, 1
"""The most rounds, and those before them, of what takes long."""


class Clock(Protocol):
    """Marks points in the work of a device and tells the seconds between two of them."""

    def mark(self) -> Any:
        """A point in time."""

    def wait(self) -> None:
        """Return once the device has done all its work."""

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks; call :meth:`wait` after the last one."""


class CPUClock:
    """Wall-clock time of the host."""

    def mark(self) -> float:
        """See :class:`Clock`."""
        return time.perf_counter()

    def wait(self) -> None:
        """The CPU has done its work when a call returns."""

    def seconds(self, start: float, end: float) -> float:
        """See :class:`Clock`."""
        return end - start


class CUDAClock:
    """The work of the current CUDA device, by events in its stream."""

    def mark(self) -> torch.cuda.Event:
        """See :class:`Clock`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """See :class:`Clock`."""
        torch.cuda.synchronize()

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """See :class:`Clock`."""
        return start.elapsed_time(end) / 1000


def clock_of(device: str) -> Clock:
    """The clock of "cpu" or "cuda"."""
    return CUDAClock() if device == "cuda" else CPUClock()


def time_in_turn(
    runs: Mapping[str, Callable[[], Any]],
    clock: Clock,
    repeats: int,
    title: str,
    warmup: int = WARMUP,
) -> dict[str, list[float]]:
    """Time each run once a repeat, in their order, after rounds that do not count.

    Args:
        runs: what to time, by name.
        clock: of the device that works.
        repeats: rounds that count.
        title: of the progress bar.
        warmup: rounds before them.

    Returns:
        ``repeats`` times in seconds for each name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in Progress(range(-warmup, repeats), title, unit="round"):
        gc.collect()
        for name, run in runs.items():
            lap = _time(run, clock)
            if number >= 0:
                seconds[name].append(lap)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest value."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def relative(seconds: Sequence[float], reference: Sequence[float]) -> dict[str, dict[str, float]]:
    """Times in units of the reference that was timed in the same rounds.

    Args:
        seconds: of each round.
        reference: of each round.

    Returns:
        ``seconds``, ``reference_seconds`` and ``ratio``, the spread of each; the ratio's is that of
        the rounds' own ratios.
    """
    ratios = [own / other for own, other in zip(seconds, reference, strict=True)]
    return {
        "seconds": spread(seconds),
        "reference_seconds": spread(reference),
        "ratio": spread(ratios),
    }


def _time(run: Callable[[], Any], clock: Clock) -> float:
    gc.disable()
    try:
        clock.wait()
        start = clock.mark()
        run()
        end = clock.mark()
        clock.wait()
    finally:
        gc.enable()
    return clock.seconds(start, end)
