"""Measures a model: forward, training step, memory and stages.

Each measure yields what it knows so far, so that a run that is cut off loses nothing.
"""

from collections.abc import Iterator
from typing import Any

from qdformer.benchmark.memory import METHODS, peak_memory
from qdformer.benchmark.options import BenchmarkOptions
from qdformer.benchmark.runs import RUNS, EvalForward, Reference
from qdformer.benchmark.stages import (
    count_flops,
    count_parameters,
    record_stages,
    stage_totals,
)
from qdformer.benchmark.timing import REFERENCE, clock_of, relative, time_in_turn


def measure_eval(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """The forward in evaluation, beside ResNet-50."""
    yield _measure(cfg, options, "eval")


def measure_training(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """The training step, beside ResNet-50."""
    yield _measure(cfg, options, "train")


def measure_memory(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Peak bytes of forward and training step, and on the CPU the libraries' share of them."""
    device = options.workload.device
    result: dict[str, Any] = {"method": METHODS[device]}
    for name in (*options.workload.runs, *(() if device == "cuda" else (None,))):
        result[name or "libraries"] = peak_memory(cfg, options.workload, name)
        yield result


def measure_stages(cfg, options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Times inside of whole forwards, FLOPs and parameters of each stage."""
    workload, clock = options.workload, clock_of(options.workload.device)
    forward, reference = EvalForward(cfg, workload), Reference(workload)
    flops, parameters = count_flops(forward.model, forward), count_parameters(forward.model)
    forwards = []
    with record_stages(forward.model, clock.mark) as laps:

        def recorded() -> None:
            laps.clear()
            forward()
            forwards.append(list(laps))

        runs = {REFERENCE: reference, "stages": recorded}
        seconds = time_in_turn(runs, clock, options.repeats, "stages")
    wholes, references = seconds["stages"], seconds[REFERENCE]
    rounds = [
        stage_totals(laps, clock.seconds, whole)
        for laps, whole in zip(forwards[-options.repeats :], wholes, strict=True)
    ]
    total = [sum(counts) for counts in zip(*parameters.values())]
    yield {
        "whole": {
            **relative(wholes, references),
            "flops": sum(flops.values()),
            "trained_parameters": total[0],
            "parameters": total[1],
        },
        "stages": [
            {
                "name": name,
                **relative([totals[name] for totals in rounds], references),
                "flops": flops[name],
                "trained_parameters": parameters.get(name, (0, 0))[0],
                "parameters": parameters.get(name, (0, 0))[1],
            }
            for name in rounds[0]
        ],
        "flops_count": "matrix products and convolutions, two for each multiply-add",
    }


def _measure(cfg, options: BenchmarkOptions, name: str) -> dict[str, Any]:
    workload = options.workload
    runs = {REFERENCE: Reference(workload), name: RUNS[name](cfg, workload)}
    seconds = time_in_turn(runs, clock_of(workload.device), options.repeats, name)
    return relative(seconds[name], seconds[REFERENCE])
