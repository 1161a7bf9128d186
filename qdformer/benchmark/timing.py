"""Times things in turn, so that whatever slows the machine down slows all of them down."""

import gc
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from torch.utils.benchmark.utils.timer import timer

from qdformer.progress import Progress

REFERENCE = "reference"
Spread = dict[str, float]


def time_in_turn(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    title: str,
    *,
    warmup: int = 2,
    now: Callable[[], float] = timer,
) -> dict[str, list[float]]:
    """Time each run once a repeat, in their order, after rounds that do not count.

    Args:
        runs: what to time, by name.
        repeats: rounds that count.
        title: of the progress bar.
        warmup: rounds before them.
        now: seconds; torch's timer waits for the GPU.

    Returns:
        ``repeats`` times in seconds for each name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in Progress(range(-warmup, repeats), title, unit="round"):
        for name, run in runs.items():
            gc.collect()
            gc.disable()
            try:
                start = now()
                run()
                lap = now() - start
            finally:
                gc.enable()
            if number >= 0:
                seconds[name].append(lap)
    return seconds


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest value."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def relative(seconds: Sequence[float], reference: Sequence[float]) -> dict[str, Spread]:
    """The spreads of ``seconds``, ``reference_seconds`` and, round by round, their ``ratio``."""
    ratios = [own / other for own, other in zip(seconds, reference, strict=True)]
    return {
        "seconds": spread(seconds),
        "reference_seconds": spread(reference),
        "ratio": spread(ratios),
    }
