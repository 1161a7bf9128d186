import math

import numpy as np
import pytest

from qdformer.visualization.training_curves import mean_curve, training_curves

STEPS = [10, 20, 30]
LOSS = {"with": [(STEPS, [3, 2, 1]), (STEPS, [5, 4, 3])], "without": [(STEPS, [9, 8, 7])]}
MIOU = {"without": [([30], [20.0])], "with": [([15, 30], [30.0, 40.0])]}


def test_mean_is_over_iterations_that_all_seeds_have():
    assert mean_curve(LOSS["with"]) == (STEPS, [4, 3, 2])
    shorter = [*LOSS["with"], ([30, 10, 40], [7, 7, 7])]
    assert mean_curve(shorter) == ([10, 30], [5, 11 / 3])
    assert mean_curve([]) == ([], [])


def test_the_last_value_of_a_resumed_training_counts():
    resumed = ([10, 20, 30, 20, 30], [1, 2, 3, 8, 9])
    assert mean_curve([resumed]) == (STEPS, [1, 8, 9])


def test_values_that_are_not_finite_leave_a_gap(draw):
    iterations, values = mean_curve([(STEPS, [3, math.inf, math.nan])])
    assert iterations == STEPS
    np.testing.assert_array_equal(values, [3, math.nan, math.nan])
    drawing = draw(training_curves, {"loss": {"run": [(STEPS, [3, math.inf, math.nan])]}})
    assert drawing.legend == ["run (1 seed): 3 at 10"]


def test_trainings_keep_their_color_in_every_panel(draw):
    drawing = draw(training_curves, {"loss": LOSS, "mIoU (%)": MIOU}, "Two trainings")
    drawing.assert_legible()
    assert drawing.legend == [
        "with (2 seeds): 2 at 30",
        "without (1 seed): 7 at 30",
        "without (1 seed): 20 at 30",
        "with (1 seed): 40 at 30",
    ]
    left, right = drawing.figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "mIoU (%)")
    assert left.get_xlabel() == right.get_xlabel() == "training iteration"
    colors = [
        {
            line.get_label().split()[0]: line.get_color()
            for line in axes.lines
            if "seed" in str(line)
        }
        for axes in (left, right)
    ]
    assert len(colors[0]) == 2
    for name in LOSS:
        np.testing.assert_array_equal(colors[0][name], colors[1][name])


def test_seeds_are_drawn_beside_their_mean(draw):
    axes = draw(training_curves, {"loss": LOSS}).figure.axes[0]
    drawn = [list(line.get_ydata()) for line in axes.lines]
    assert drawn == [[3, 2, 1], [5, 4, 3], [4, 3, 2], [9, 8, 7]]


@pytest.mark.parametrize("panels", [{}, {"loss": {}}, {"loss": {}, "mIoU (%)": MIOU}])
def test_without_curves_it_says_so(draw, panels):
    drawing = draw(training_curves, panels)
    drawing.assert_legible()
    assert "no curves" in drawing.texts


def test_a_training_without_seeds_is_named(draw):
    drawing = draw(training_curves, {"loss": {"failed": []}})
    drawing.assert_legible()
    assert drawing.legend == ["failed (0 seeds): no values"]


def test_many_trainings_of_long_names_do_not_overlap(draw):
    panel = {f"training number {n} " + "with a name " * 5: LOSS["with"] for n in range(12)}
    drawing = draw(training_curves, {"loss": panel, "J&F (%)": panel}, "many words " * 20)
    drawing.assert_legible()
    assert len(drawing.legend) == 24
