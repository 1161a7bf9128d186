"""How time and memory grow with the length of a clip and the size of its frames."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qdformer.benchmark.memory import peak_memory
from qdformer.benchmark.options import BenchmarkOptions, Workload
from qdformer.benchmark.runs import EvalForward, Reference
from qdformer.benchmark.timing import (
    FEW_REPEATS,
    FEW_WARMUP,
    REFERENCE,
    clock_of,
    relative,
    time_in_turn,
)

REFERENCE_FRAMES, REFERENCE_SIZE = 5, 224
"""What ResNet-50 gets beside every point."""


def measure_growth(cfg, options: BenchmarkOptions) -> Iterator[list[dict[str, Any]]]:
    """Time and peak memory of the forward in evaluation at each length and each size.

    Args:
        cfg: of the model.
        options: the lengths and sizes; at most 3 repeats are made.

    Yields:
        The points so far: ``frames``, ``size``, ``memory`` in bytes, and the times relative to
        ResNet-50 on 5 frames of 224 x 224.
    """
    base = options.workload
    workloads = [replace(base, frames=frames) for frames in options.growth_frames]
    workloads += [replace(base, size=size) for size in options.growth_sizes]
    points = []
    for workload in dict.fromkeys(workloads):
        times = _times(cfg, workload, min(options.repeats, FEW_REPEATS))
        memory = peak_memory(cfg, workload, "eval")
        points.append({"frames": workload.frames, "size": workload.size, "memory": memory, **times})
        yield points


def _times(cfg, workload: Workload, repeats: int) -> dict[str, dict[str, float]]:
    reference = replace(workload, frames=REFERENCE_FRAMES, size=REFERENCE_SIZE, batch=1)
    runs = {REFERENCE: Reference(reference), "eval": EvalForward(cfg, workload)}
    title = f"growth, {workload.frames} x {workload.size} x {workload.size}"
    seconds = time_in_turn(runs, clock_of(workload.device), repeats, title, FEW_WARMUP)
    return relative(seconds["eval"], seconds[REFERENCE])
