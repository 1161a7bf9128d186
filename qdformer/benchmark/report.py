"""Results: measured, kept as JSON, shown as tables."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from qdformer.benchmark.charts import CHARTS
from qdformer.benchmark.measures import MEASURES
from qdformer.benchmark.options import BenchmarkOptions
from qdformer.errors import InputError, make_folder
from qdformer.io.atomic_write import write_json

FORMAT = "qdformer benchmark 2"

_GIGABYTE = 1e9


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
    if unknown := [name for name in options.measures if name not in MEASURES]:
        raise InputError(
            f"there is no measure {unknown[0]!r}; choose among {', '.join(MEASURES)}, and give "
            "KEY VALUE pairs behind another option or behind --"
        )
    options.check()
    cfg = options.load_config()
    make_folder(options.output.parent, f"--output is {options.output}, which")
    machine = describe_machine(options.workload.device)
    result: dict[str, Any] = {
        "format": FORMAT,
        "settings": options.settings(),
        "machine": machine,
        "results": {},
    }
    if options.output.exists():
        before, commit = load_result(options.output), machine["commit"]
        if {**before, "results": {}} == result and commit and not commit.endswith("-dirty"):
            result = before
    for name in options.measures:
        for found in MEASURES[name](cfg, options):
            result["results"][name] = found
            write_json(options.output, result)
        if name in CHARTS:
            CHARTS[name](result, chart_file(options.output, name))
    return result


def describe_machine(device: str) -> dict[str, Any]:
    """Processor, threads and versions; ``commit`` is None outside of a checkout."""
    root = Path(__file__).parents[2]
    cpuinfo = Path(os.sep, "proc", "cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    commit = None
    if (root / ".git").exists():
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        commit = done.stdout.strip() or None
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "tf32": [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }


def load_result(path: Path) -> dict[str, Any]:
    """Read what :func:`run_benchmark` wrote.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the JSON that benchmark.py wrote")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is no JSON; give the file that benchmark.py wrote") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise InputError(
            f"{path}: is not a result of this version of benchmark.py ({FORMAT!r}); measure again"
        )
    return result


def measurements(result: dict[str, Any]) -> dict[str, float]:
    """Every number that two results can be compared by, in one order, by what it is."""
    results, rows = result["results"], {}
    for name, label in (("eval", "eval"), ("train", "training step")):
        if name in results:
            rows[f"{label} / ResNet-50"] = results[name]["ratio"]["median"]
            rows[f"{label}, s"] = results[name]["seconds"]["median"]
    for name, peak in results.get("memory", {}).items():
        rows[f"peak memory {name}, GB"] = peak / _GIGABYTE
    for stage in results.get("stages", {}).get("stages", ()):
        rows[f"{stage['name']} / ResNet-50"] = stage["ratio"]["median"]
    for name, times in results.get("attention", {}).items():
        rows[f"deformable attention, {name} / ResNet-50"] = times["ratio"]["median"]
    for point in results.get("growth", ()):
        label = f"{point['frames']} x {point['size']} x {point['size']}"
        rows[f"eval {label} / ResNet-50 of 5 x 224 x 224"] = point["ratio"]["median"]
        rows[f"peak memory eval {label}, GB"] = point["memory"] / _GIGABYTE
    for mode, rates in results.get("data", {}).items():
        for reader, rate in rates.items():
            rate = rate["median"] if isinstance(rate, dict) else rate
            rows[f"data {mode}, {reader}, clips/s"] = rate
    for size, rates in results.get("evaluators", {}).items():
        for name, rate in rates.items():
            rows[f"{name}, {size}, frames/s"] = rate["median"]
    for name, seconds in results.get("video", {}).items():
        rows[f"video, {name}" + ("" if "/" in name else ", s/s")] = seconds["median"]
    return rows


def comparison(results: Sequence[dict[str, Any]]) -> str:
    """A row for each measurement, a column for each result, and B / A for two of them."""
    columns = [measurements(result) for result in results]
    heads = [_describe(result) for result in results]
    headers, rows = ["", *("\n".join(head) for head in heads)], []
    if len(columns) == 2:
        headers.append("B / A")
    for label in dict.fromkeys(label for column in columns for label in column):
        values = [column.get(label) for column in columns]
        if len(columns) == 2:
            first, second = values
            values.append(second / first if first and second is not None else None)
        rows.append([label, *map(_number, values)])
    return _table(headers, rows)


def stage_table(result: dict[str, Any]) -> str:
    """Time, parameters and FLOPs of each stage; needs the measure ``stages``."""
    measured = result["results"]["stages"]
    whole = measured["whole"]
    rows = []
    for stage in [*measured["stages"], {"name": "whole", **whole}]:
        least, middle, most = (1000 * stage["seconds"][key] for key in ("min", "median", "max"))
        ratio = stage["ratio"]["median"]
        rows.append([stage["name"], f"{middle:.1f}", f"{least:.1f} to {most:.1f}", f"{ratio:.2f}",
                     f"{ratio / whole['ratio']['median']:.0%}", f"{stage['flops'] / 1e9:.2f}",
                     f"{stage['trained_parameters'] / 1e6:.2f}",
                     f"{stage['parameters'] / 1e6:.2f}"])  # fmt: skip
    headers = ["stage", "ms", "least to most", "/ ResNet-50", "share", "GFLOPs", "M trained", "M"]
    return _table(headers, rows)


def chart_file(output: Path, measure: str) -> Path:
    """The picture beside a JSON."""
    return output.with_name(f"{output.stem}_{measure}.png")


def summary(result: dict[str, Any]) -> str:
    """All that was measured, for people."""
    parts = [comparison([result])]
    if "stages" in result["results"]:
        parts.append(stage_table(result))
    return "\n\n".join(parts)


def _describe(result: dict[str, Any]) -> list[str]:
    settings, machine = result["settings"], result["machine"]
    threads = f"{machine['cpu']}, {machine['threads']} threads"
    size = f"{settings['frames']} x {settings['size']} x {settings['size']}"
    return [
        " ".join([Path(settings["config"]).stem, *settings["overrides"]]),
        machine["gpu"] or threads,
        f"{settings['batch']} x {size}, {settings['precision']}",
    ]


def _table(headers: list[str], rows: list[list[str]]) -> str:
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    return f"{value:.{decimals}f}"
