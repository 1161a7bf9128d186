"""IoU per class as sorted bars (Fig. A)."""

import math
import textwrap
from collections.abc import Mapping

import numpy as np

from .chart import colors, new_figure, picture, say_empty

_WIDTH, _BAR, _LINE = 720, 14, 20

ClassIoU = Mapping[str, float | None]
"""Per cent by the name of the class; None or NaN for a class without ground truth."""


def class_bars(
    models: Mapping[str, ClassIoU], num_frames: int, title: str = "IoU per class"
) -> np.ndarray:
    """Draw how well each class is segmented, the best at the top.

    The picture grows with the classes. Those without ground truth are listed below the bars and
    take no part in a model's mean, which a dashed line marks.

    Args:
        models: the IoU of each class by the name of the model, as ``iou_per_class`` in the JSON
            file of :class:`qdformer.evaluation.avs_semantic_evaluation.AVSSemanticEvaluator`. The
            first model decides the order.
        num_frames: annotated frames that were evaluated.
        title: a line at the top.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    shown, absent = sort_classes(models)
    note = f"without ground truth, in no mean ({len(absent)}): {', '.join(absent)}"
    notes = textwrap.wrap(note, _WIDTH // 9) if absent else []
    bars = max(len(models), 1)
    rows = max(len(shown), 3) * (_BAR * bars + 6)
    # Names never take the bars' place.
    width = _WIDTH + 7 * max(map(len, shown), default=0)
    figure = new_figure(width, rows + _LINE * (len(notes) + len(models)) + 150, title)
    axes = figure.add_subplot()
    places = np.arange(len(shown))
    for index, (model, color) in enumerate(zip(models, colors(len(models)))):
        values = np.array([_number(models[model].get(name)) for name in shown])
        known = ~np.isnan(values)
        if not known.any():
            continue
        mean = math.fsum(values[known]) / known.sum()
        offset = 0.84 * ((index + 0.5) / bars - 0.5)
        drawn = axes.barh(
            places[known] + offset,
            values[known],
            height=0.84 / bars,
            color=color,
            label=f"{model}: mean {mean:.1f} % of {known.sum()} classes",
        )
        # Above the lines of the means, which are above the bars.
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8, zorder=4, bbox=paper)
        axes.axvline(mean, color=0.6 * color, linestyle="--", linewidth=1.5, zorder=3)
    axes.set_xlabel("\n".join([f"IoU (%) over {num_frames} frames; dashed: mean", *notes]))
    if not shown:
        say_empty(axes, "no class with ground truth")
        return picture(figure)
    axes.set_yticks(places, shown, fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 10))
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", frameon=False)
    return picture(figure)


def sort_classes(models: Mapping[str, ClassIoU]) -> tuple[list[str], list[str]]:
    """The classes with ground truth, by falling IoU of the first model, and those without any."""
    names = list(dict.fromkeys(name for classes in models.values() for name in classes))
    absent = [
        name
        for name in names
        if all(math.isnan(_number(classes.get(name))) for classes in models.values())
    ]

    def rank(name: str) -> float:
        value = _number(next(iter(models.values())).get(name))
        return math.inf if math.isnan(value) else -value

    return sorted((name for name in names if name not in absent), key=rank), absent


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
