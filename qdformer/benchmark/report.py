"""Results as JSON, and as tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from qdformer.errors import InputError
from qdformer.io.atomic_write import write_json

FORMAT = "qdformer benchmark 1"

ABSENT = "-"
GIGABYTE = 1e9


def save_result(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    write_json(path, result)


def load_result(path: Path) -> dict[str, Any]:
    """Read what :func:`save_result` wrote.

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
    results = result["results"]
    rows = {}
    for name, label in (("eval", "eval"), ("train", "training step")):
        if name in results:
            rows[f"{label} / ResNet-50"] = results[name]["ratio"]["median"]
            rows[f"{label}, s"] = results[name]["seconds"]["median"]
    memory = results.get("memory", {})
    for name, label in (("eval", "eval"), ("train", "training"), ("libraries", "libraries alone")):
        if name in memory:
            rows[f"peak memory {label}, GB"] = memory[name] / GIGABYTE
    for stage in results.get("stages", {}).get("stages", ()):
        rows[f"{stage['name']} / ResNet-50"] = stage["ratio"]["median"]
    for name, times in results.get("attention", {}).items():
        rows[f"deformable attention, {name} / ResNet-50"] = times["ratio"]["median"]
    for point in results.get("growth", ()):
        label = f"{point['frames']} x {point['size']} x {point['size']}"
        rows[f"eval {label} / ResNet-50 of 5 x 224 x 224"] = point["ratio"]["median"]
        rows[f"peak memory eval {label}, GB"] = point["memory"] / GIGABYTE
    for mode, label in (("train", "training"), ("eval", "eval")):
        for reader, rate in results.get("data", {}).get(mode, {}).items():
            rate = rate["median"] if isinstance(rate, dict) else rate
            rows[f"data {label}, {reader}, clips/s"] = rate
    for size, rates in results.get("evaluators", {}).items():
        for name, rate in rates.items():
            rows[f"{name}, {size}, frames/s"] = rate["median"]
    return rows


def comparison(results: dict[str, dict[str, Any]]) -> str:
    """A row for each measurement, a column for each result, and B / A for two of them.

    Args:
        results: by the name of their column.
    """
    columns = {name: measurements(result) for name, result in results.items()}
    rows = [["config", *map(config_name, results.values())]]
    rows += [["on", *map(_device, results.values())]]
    rows += [["for", *map(_workload, results.values())]]
    headers = ["", *columns]
    if len(columns) == 2:
        headers.append("B / A")
        rows = [[*row, ""] for row in rows]
    for label in dict.fromkeys(label for column in columns.values() for label in column):
        values = [column.get(label) for column in columns.values()]
        row = [label, *map(_number, values)]
        if len(columns) == 2:
            first, second = values
            row.append(_number(second / first if first and second is not None else None))
        rows.append(row)
    return _table(headers, rows)


def stage_table(result: dict[str, Any]) -> str:
    """Time, parameters and FLOPs of each stage; needs the measure ``stages``."""
    measured = result["results"]["stages"]
    whole = measured["whole"]
    rows = [
        [
            stage["name"],
            f"{1000 * stage['seconds']['median']:.1f}",
            f"{1000 * stage['seconds']['min']:.1f} to {1000 * stage['seconds']['max']:.1f}",
            f"{stage['ratio']['median']:.2f}",
            f"{stage['ratio']['median'] / whole['ratio']['median']:.0%}",
            f"{stage['flops'] / 1e9:.2f}",
            f"{stage['trained_parameters'] / 1e6:.2f}",
            f"{stage['parameters'] / 1e6:.2f}",
        ]
        for stage in [*measured["stages"], {"name": "whole", **whole}]
    ]
    headers = ["stage", "ms", "least to most", "/ ResNet-50", "share", "GFLOPs", "M trained", "M"]
    return f"{_table(headers, rows)}\nFLOPs: {measured['flops_count']}."


def readme_table(results: Sequence[dict[str, Any]]) -> str:
    """The README's table: a row for each result, ``-`` for what it did not measure.

    Args:
        results: see :func:`load_result`.

    Returns:
        Markdown, without a newline at its end.
    """
    headers = [
        "config", "device", "precision", "frames", "batch", "eval / ResNet-50",
        "training step / ResNet-50", "peak memory eval, GB", "peak memory training, GB",
        "clips/s eval", "clips/s training",
    ]  # fmt: skip
    rows = []
    for result in results:
        settings, numbers = result["settings"], measurements(result)
        rates = [numbers.get(label) for label in ("eval, s", "training step, s")]
        rows.append(
            [
                config_name(result),
                _device(result),
                settings["precision"],
                f"{settings['frames']} x {settings['size']} x {settings['size']}",
                str(settings["batch"]),
                *(_number(numbers.get(label)) for label in headers[5:9]),
                *(_number(seconds and settings["batch"] / seconds) for seconds in rates),
            ]
        )
    return _table(headers, rows, names=3)


def _table(headers: list[str], rows: list[list[str]], names: int = 1) -> str:
    """Markdown with ``names`` columns of words and numbers behind them."""
    align = ["left"] * names + ["right"] * (len(headers) - names)
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align)


def _number(value: float | None) -> str:
    if value is None:
        return ABSENT
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    return f"{value:.{decimals}f}"


def config_name(result: dict[str, Any]) -> str:
    """The config's file name without its ending, and what was changed in it."""
    settings = result["settings"]
    return " ".join([Path(settings["config"]).stem, *settings["overrides"]])


def _device(result: dict[str, Any]) -> str:
    machine = result["machine"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    return machine["gpu"] or f"{machine['cpu']}, {threads}"


def _workload(result: dict[str, Any]) -> str:
    settings = result["settings"]
    size = f"{settings['frames']} x {settings['size']} x {settings['size']}"
    return f"{settings['batch']} x {size}, {settings['precision']}"
