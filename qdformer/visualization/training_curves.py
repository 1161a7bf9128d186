"""Losses and metrics over the course of training (Fig. B)."""

from collections.abc import Mapping, Sequence

import numpy as np

from .chart import colors, new_figure, picture, say_empty

Curve = tuple[Sequence[float], Sequence[float]]
"""Iterations and the values at them, of one run."""


def training_curves(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], title: str = "Training"
) -> np.ndarray:
    """Draw how trainings compare, a panel for each quantity.

    Seeds are thin lines and their mean is a thick one. The legend says where each mean ends.

    Args:
        panels: for the name and unit of each quantity, the curves of each training by its name, one
            a seed. Of values for the same iteration, as a resumed training writes, the last one
            counts; values that are not finite leave a gap.
        title: a line at the top.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    trainings = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    count = max(len(panels), 1)
    # The legend of a panel stands below it, where it needs the width of its longest line.
    width = max(520, 8 * max(map(len, trainings), default=0) + 280)
    figure = new_figure(width * count, 400 + 20 * len(trainings), title)
    grid = figure.subplots(1, count, squeeze=False)[0]
    if not panels:
        say_empty(grid[0], "no curves")
    color_of = dict(zip(trainings, colors(len(trainings))))
    for axes, (quantity, panel) in zip(grid, panels.items()):
        axes.set_xlabel("training iteration")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        for training, curves in panel.items():
            color = color_of[training]
            iterations, mean = mean_curve(curves)
            for curve in curves if len(curves) > 1 else ():
                axes.plot(*mean_curve([curve]), color=color, alpha=0.35, linewidth=0.8)
            seeds = f"{len(curves)} seed{'s' * (len(curves) != 1)}"
            label = f"{training} ({seeds}): {_end(iterations, mean)}"
            marker = "o" if len(iterations) < 30 else None
            axes.plot(iterations, mean, color=color, marker=marker, markersize=4, label=label)
        if panel:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)
        else:
            say_empty(axes, "no curves")
    return picture(figure)


def mean_curve(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    """The mean over seeds at the iterations that all of them have, in order."""
    points = [dict(zip(*curve, strict=True)) for curve in curves]
    shared = sorted(set.intersection(*map(set, points))) if points else []
    means = [float(np.mean([values[iteration] for values in points])) for iteration in shared]
    return shared, [mean if np.isfinite(mean) else np.nan for mean in means]


def _end(iterations: Sequence[float], values: Sequence[float]) -> str:
    finite = [point for point in zip(iterations, values) if np.isfinite(point[1])]
    return f"{finite[-1][1]:.4g} at {finite[-1][0]:g}" if finite else "no values"
