"""A metric against the strength of background noise (Fig. 7)."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from .chart import colors, new_figure, picture, say_empty

_MARKERS = "os^Dv<>P"


def snr_curve(
    models: Mapping[str, Mapping[float, Sequence[float]]],
    num_clips: int,
    metric: str = "mIoU (%)",
    title: str = "Segmentation under background noise",
) -> np.ndarray:
    """Draw a metric against the signal-to-noise ratio, the mean and deviation over seeds.

    Args:
        models: for the name of each model, values by SNR in dB, one a seed; ``math.inf`` is the
            clean sound, which has a place of its own at the right. Values that are not finite, of
            runs that failed, are left out.
        num_clips: test clips behind each value.
        metric: its name and unit.
        title: a line at the top.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    models = {model: _finite(points) for model, points in models.items()}
    ratios = sorted({ratio for points in models.values() for ratio in points})
    figure = new_figure(max(640, 56 * len(ratios) + 160), 420 + 20 * len(models), title)
    axes = figure.add_subplot()
    axes.set_ylabel(metric)
    if not ratios:
        say_empty(axes, "no values")
        return picture(figure)
    noisy = [ratio for ratio in ratios if ratio != math.inf]
    step = (noisy[-1] - noisy[0]) / (len(noisy) - 1) if len(noisy) > 1 else 1
    clean = noisy[-1] + 1.2 * step if noisy else 0
    for index, (model, color) in enumerate(zip(models, colors(len(models)))):
        points = models[model]
        style = {"color": color, "marker": _MARKERS[index % len(_MARKERS)], "capsize": 4}
        style["label"] = f"{model} ({_count_seeds(points)})"
        curve = [(ratio, *mean_and_deviation(points[ratio])) for ratio in noisy if ratio in points]
        places, means, deviations = zip(*curve) if curve else ((), (), ())
        axes.errorbar(places, means, yerr=deviations, **style)
        if math.inf in points:
            # No line leads to the clean sound: what is between is no ratio.
            mean, deviation = mean_and_deviation(points[math.inf])
            axes.errorbar([clean], [mean], yerr=[deviation], **{**style, "label": None})
    if math.inf in ratios:
        if noisy:
            axes.axvline(noisy[-1] + 0.6 * step, color="gray", linestyle=":")
        noisy.append(clean)
    axes.set_xticks(noisy, ["clean" if ratio == math.inf else f"{ratio:g}" for ratio in ratios])
    axes.set_xlabel(
        f"signal-to-noise ratio (dB), {num_clips} clips; bars: standard deviation over seeds"
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False)
    return picture(figure)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds, 0 for a single one."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _finite(points: Mapping[float, Sequence[float]]) -> dict[float, list[float]]:
    kept = {ratio: [float(v) for v in values if np.isfinite(v)] for ratio, values in points.items()}
    return {ratio: values for ratio, values in kept.items() if values}


def _count_seeds(points: Mapping[float, Sequence[float]]) -> str:
    counts = sorted({len(values) for values in points.values()})
    if not counts:
        return "no values"
    text = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{text} seed" if text == "1" else f"{text} seeds"
