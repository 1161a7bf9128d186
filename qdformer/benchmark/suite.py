"""Runs measures one after the other and keeps what they found."""

from pathlib import Path
from typing import Any

from qdformer.benchmark.attention_benchmark import measure_attention
from qdformer.benchmark.charts import CHARTS
from qdformer.benchmark.data_benchmark import measure_data
from qdformer.benchmark.evaluator_benchmark import measure_evaluators
from qdformer.benchmark.growth import measure_growth
from qdformer.benchmark.machine import describe_machine
from qdformer.benchmark.model_benchmark import (
    measure_eval,
    measure_memory,
    measure_stages,
    measure_training,
)
from qdformer.benchmark.options import BenchmarkOptions, Workload
from qdformer.benchmark.report import FORMAT, comparison, load_result, save_result, stage_table
from qdformer.errors import InputError, make_folder

MEASURES = {
    "eval": measure_eval,
    "train": measure_training,
    "memory": measure_memory,
    "stages": measure_stages,
    "attention": measure_attention,
    "growth": measure_growth,
    "data": measure_data,
    "evaluators": measure_evaluators,
}


def default_measures(workload: Workload) -> tuple[str, ...]:
    """The forward, and the training step if there is one, from all sides."""
    return (*workload.runs, "memory", "stages")


def run_benchmark(options: BenchmarkOptions) -> dict[str, Any]:
    """Measure, and write each result as soon as it is there.

    What an earlier run of the same commit, without changes to it, with the same settings on the
    same machine left in the file stays there, unless it is measured again. Any other result is
    replaced.

    Args:
        options: what to measure.

    Returns:
        The content of the JSON: ``settings``, ``machine`` and ``results`` by measure.

    Raises:
        InputError: an option, the config or the output file cannot be used.
    """
    unknown = [name for name in options.measures if name not in MEASURES]
    if unknown:
        raise InputError(
            f"there is no measure {unknown[0]!r}; choose among {', '.join(MEASURES)}, and give "
            "KEY VALUE pairs behind another option or behind --"
        )
    options.check()
    cfg = options.load_config()
    result = _begin(options)
    for name in options.measures:
        for found in MEASURES[name](cfg, options):
            result["results"][name] = found
            save_result(result, options.output)
        if name in CHARTS:
            CHARTS[name](result, chart_file(options.output, name))
    return result


def chart_file(output: Path, measure: str) -> Path:
    """The picture beside a JSON."""
    return output.with_name(f"{output.stem}_{measure}.png")


def summary(result: dict[str, Any]) -> str:
    """All that was measured, for people."""
    parts = [comparison({"median": result})]
    if "stages" in result["results"]:
        parts.append(stage_table(result))
    return "\n\n".join(parts)


def _begin(options: BenchmarkOptions) -> dict[str, Any]:
    """A result without measurements, or the one in the file if it is of the same kind."""
    result = {
        "format": FORMAT,
        "settings": options.settings(),
        "machine": describe_machine(options.workload.device),
        "results": {},
    }
    make_folder(options.output.parent, f"--output is {options.output}, which")
    if options.output.exists():
        before = load_result(options.output)
        commit = result["machine"]["commit"]
        if {**before, "results": {}} == result and commit and not commit.endswith("-dirty"):
            return before
    return result
