import math

import numpy as np
import pytest

from qdformer.visualization.snr_curve import mean_and_deviation, snr_curve

CLEAN = math.inf
QUANTISED = {-10: [30, 34], 0: [40.0, 40.0], 20: [44, 46], CLEAN: [46, 48]}
CONTINUOUS = {CLEAN: [45], 0: [30.0], -10: [12], 20: [math.nan]}


def points(container):
    line = container.lines[0]
    return list(zip(line.get_xdata(), line.get_ydata()))


def test_means_and_deviations_stand_at_their_ratios(draw):
    drawing = draw(snr_curve, {"quantized": QUANTISED}, 90, metric="J&F (%)")
    drawing.assert_legible()
    axes = drawing.figure.axes[0]
    noisy, clean = axes.containers
    assert points(noisy) == [(-10, 32), (0, 40), (20, 45)]
    (bars,) = noisy.lines[2]
    heights = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, [2 * 8**0.5, 0, 2 * 2**0.5])
    ((place, value),) = points(clean)
    assert place > 20 and value == 47
    assert axes.get_ylabel() == "J&F (%)" and "dB" in axes.get_xlabel()
    assert "90 clips" in axes.get_xlabel()


def test_clean_has_a_tick_of_its_own_at_the_right(draw):
    axes = draw(snr_curve, {"quantized": QUANTISED}, 90).figure.axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["-10", "0", "20", "clean"]
    assert list(axes.get_xticks()) == sorted(axes.get_xticks())


def test_every_model_is_in_the_legend_with_its_seeds(draw):
    models = {"quantized": QUANTISED, "continuous": CONTINUOUS, "failed": {0: [math.nan]}}
    models["mixed"] = {0: [1, 2, 3], 5: [1]}
    drawing = draw(snr_curve, models, 90)
    drawing.assert_legible()
    assert drawing.legend == [
        "quantized (2 seeds)",
        "continuous (1 seed)",
        "failed (no values)",
        "mixed (1–3 seeds)",
    ]
    continuous = drawing.figure.axes[0].containers[2]
    assert points(continuous) == [(-10, 12), (0, 30)]


@pytest.mark.parametrize("models", [{}, {"model": {}}, {"model": {0: []}}])
def test_without_values_it_says_so(draw, models):
    drawing = draw(snr_curve, models, 0)
    drawing.assert_legible()
    assert "no values" in drawing.texts


@pytest.mark.parametrize("ratio", [5, CLEAN])
def test_one_ratio(draw, ratio):
    drawing = draw(snr_curve, {"model": {ratio: [3.0]}}, 1)
    drawing.assert_legible()
    assert ("clean" if ratio == CLEAN else "5") in drawing.texts


def test_many_ratios_do_not_overlap(draw):
    ratios = [*range(-40, 41, 2), CLEAN]
    draw(snr_curve, {"model": {ratio: [1.0] for ratio in ratios}}, 9).assert_legible()


def test_deviation_is_that_of_a_sample():
    values = [1.0, 4.0, 7.5]
    expected = np.mean(values), np.std(values, ddof=1)
    np.testing.assert_allclose(mean_and_deviation(values), expected)
    assert mean_and_deviation([3.0]) == (3, 0)
