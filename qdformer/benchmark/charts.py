"""Pictures of a result: where the time goes, and how it grows."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qdformer.benchmark.stages import STAGES
from qdformer.io.image import write_image
from qdformer.visualization.chart import new_figure, picture

_TIME, _MEMORY = "#2a6f97", "#bc6c25"


def draw_stages(result: dict[str, Any], path: Path) -> None:
    """Draw the time of each stage as a bar, in the order of Fig. 3, into a PNG."""
    measured, stages = result["results"]["stages"]["whole"], result["results"]["stages"]["stages"]
    whole = measured["ratio"]["median"]
    ratios = [stage["ratio"]["median"] for stage in stages]
    settings = result["settings"]
    frames = settings["batch"] * settings["frames"]
    title = (
        f"Forward by stage, {whole:.2f} in all: {Path(settings['config']).stem}, {frames} frames "
        f"of {settings['size']} x {settings['size']}, {settings['device']}, "
        f"{settings['precision']}"
    )
    figure = new_figure(900, 42 * len(stages) + 130, title)
    axes = figure.subplots()
    names = [STAGES.get(stage["name"], stage["name"]) for stage in stages]
    bars = axes.barh(names, ratios, color=_TIME)
    axes.bar_label(bars, [f"{ratio:.2f}  ({ratio / whole:.0%})" for ratio in ratios], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.18, y=0.01)
    milliseconds = 1000 * measured["reference_seconds"]["median"]
    axes.set_xlabel(f"time / ResNet-50 forward ({milliseconds:.0f} ms here)")
    _save(figure, path)


def draw_growth(result: dict[str, Any], path: Path) -> None:
    """Draw time and memory against the length of a clip and the size of its frames, into a PNG."""
    points, settings = result["results"]["growth"], result["settings"]
    size, frames = settings["size"], settings["frames"]
    milliseconds = 1000 * points[0]["reference_seconds"]["median"]
    title = (
        f"Forward: {Path(settings['config']).stem}, {settings['device']}, {settings['precision']}; "
        f"ResNet-50 on 5 frames of 224 x 224 takes {milliseconds:.0f} ms here"
    )
    figure = new_figure(1100, 400, title)
    left, right = figure.subplots(1, 2)
    longer = sorted((p for p in points if p["size"] == size), key=lambda point: point["frames"])
    larger = sorted((p for p in points if p["frames"] == frames), key=lambda point: point["size"])
    _draw_curves(left, [point["frames"] for point in longer], longer)
    left.set_xlabel(f"frames of {size} x {size} pixels")
    # An axis along which the number of pixels grows evenly shows whether time does too.
    areas = [point["size"] ** 2 for point in larger]
    _draw_curves(right, areas, larger)
    right.set_xticks(areas, [str(point["size"]) for point in larger])
    right.set_xlabel(f"height and width of {frames} frames, pixels (spaced by area)")
    _save(figure, path)


CHARTS = {"stages": draw_stages, "growth": draw_growth}
"""The measures that have a picture."""


def _draw_curves(axes: Axes, places: list[int], points: list[dict[str, Any]]) -> None:
    ratios = [point["ratio"]["median"] for point in points]
    gigabytes = [point["memory"] / 1e9 for point in points]
    memory = axes.twinx()
    axes.plot(places, ratios, "o-", color=_TIME)
    axes.set_ylabel("time / ResNet-50 forward", color=_TIME)
    axes.set_ylim(0, 1.1 * max(ratios))
    memory.plot(places, gigabytes, "s--", color=_MEMORY)
    memory.set_ylabel("peak memory, GB (dashed)", color=_MEMORY)
    memory.set_ylim(0, 1.1 * max(gigabytes))


def _save(figure: Figure, path: Path) -> None:
    write_image(path, picture(figure))
