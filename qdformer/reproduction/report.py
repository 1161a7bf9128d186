"""What came out of a table or figure: as Markdown, and as one HTML file with its pictures."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from qdformer.io.atomic_write import atomic_write
from qdformer.io.image import write_image
from qdformer.reproduction.experiments import Experiment, Row
from qdformer.reproduction.runs import Run, headline
from qdformer.visualization.snr_curve import mean_and_deviation

STYLE = """body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .3em .8em; text-align: right }
td:first-child, th:first-child { text-align: left } tr { border-bottom: 1px solid #ccc }
img { max-width: 100% } pre { background: #f4f4f4; padding: 1em; overflow: auto }
.scroll { overflow-x: auto }"""


def write_report(
    folder: Path,
    experiment: Experiment,
    runs: Sequence[Run],
    pictures: Mapping[str, np.ndarray],
    machine: Mapping[str, Any],
) -> list[Path]:
    """Write ``report.md`` and ``report.html``.

    Args:
        folder: where they go, with the pictures beside them as PNG.
        experiment: what was run.
        runs: all of its runs, those that failed or are missing as well.
        pictures: (h, w, 3) uint8 RGB by caption.
        machine: processor and versions by name.

    Returns:
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, details = _results(experiment, runs), _details(runs)
    facts = [("", ""), *((name, _fact(value)) for name, value in machine.items())]
    files = {caption: f"picture_{index}.png" for index, caption in enumerate(pictures)}
    for caption, picture in pictures.items():
        write_image(folder / files[caption], picture)
    markdown = [f"# {experiment.title}\n", _markdown(results), NOTE]
    markdown += [f"![{caption}]({name})\n" for caption, name in files.items()]
    markdown += ["## Runs\n", _markdown(details), "## Machine and versions\n"]
    markdown += [_markdown(facts)]
    markdown += [f"## {run.folder.name}\n\n```yaml\n{run.cfg.dump()}```\n" for run in runs]
    page = [
        f"<!doctype html><meta charset=utf-8><title>{html.escape(experiment.title)}</title>",
        "<meta name=viewport content='width=device-width'>",
        f"<style>{STYLE}</style><h1>{html.escape(experiment.title)}</h1>",
        _html(results), f"<p>{html.escape(NOTE)}</p>",
        *(_figure(folder / name, caption) for caption, name in files.items()),
        "<h2>Runs</h2>", _html(details),
        "<h2>Machine and versions</h2>", _html(facts),
        "<h2>Configs</h2>",
        *(
            f"<details><summary>{html.escape(run.folder.name)}</summary>"
            f"<pre>{html.escape(run.cfg.dump())}</pre></details>"
            for run in runs
        ),
    ]  # fmt: skip
    texts = {"report.md": "\n".join(markdown), "report.html": "\n".join(page)}
    for name, text in texts.items():
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


NOTE = (
    "Per cent; the mean over seeds, their standard deviation and their number. Published: the "
    "paper's figures on AVSBench with pre-trained weights, not measured here.\n"
)


def _results(experiment: Experiment, runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The table: a row for each model; for each data set what was measured and published."""
    names = list(dict.fromkeys(run.data for run in runs))
    header = [""]
    for name in names:
        _, metric = headline(name)
        header += [f"{name}, {metric}", f"published {metric}"]
    table = [tuple(header)]
    for row in experiment.rows:
        cells = [row.name]
        for name in names:
            of_row = [run for run in runs if run.row is row and run.data == name]
            published = _published(row, name)
            cells += [_summary(of_row, headline(name)[1]), published]
        table.append(tuple(cells))
    return table


def _published(row: Row, data: str) -> str:
    value = row.published.get(data.rpartition("_")[2])
    return "-" if value is None else f"{value:.1f}"


def _summary(runs: Sequence[Run], metric: str) -> str:
    results = [run.result() for run in runs]
    values = [r["metrics"][metric] for r in results if r is not None and r["error"] is None]
    values = [value for value in values if value is not None and math.isfinite(value)]
    failed = sum(r is not None and r["error"] is not None for r in results)
    text = "-"
    if values:
        mean, deviation = mean_and_deviation(values)
        text = f"{mean:.1f}"
        if len(values) > 1:
            text += f" ± {deviation:.1f}"
        text += f" ({len(values)})"
    return f"{text}, {failed} failed" if failed else text


def _details(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        ("run", "seed", "result", "minutes", "peak memory, GB", "error")
    ]
    for run in runs:
        result: dict[str, Any] | None = run.result()
        if result is None:
            table.append((run.folder.name, str(run.seed), "-", "-", "-", "not run"))
            continue
        value = result["metrics"].get(headline(run.data)[1])
        table.append(
            (
                run.folder.name,
                str(run.seed),
                "-" if value is None else f"{value:.2f}",
                f"{result['seconds'] / 60:.1f}",
                f"{result['peak_memory_gb']:.2f}",
                result["error"] or "",
            )
        )
    return table


def _markdown(table: Sequence[Sequence[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table[1:]]
    return tabulate(rows, headers=table[0], tablefmt="pipe", disable_numparse=True) + "\n"


def _html(table: Sequence[Sequence[str]]) -> str:
    rows = [list(row) for row in table[1:]]
    text = tabulate(rows, headers=table[0], tablefmt="html", disable_numparse=True)
    return f"<div class=scroll>{text}</div>"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    image = f"<img alt='{text}' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"
