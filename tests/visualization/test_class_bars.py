import math

import numpy as np
import pytest

from qdformer.visualization.class_bars import class_bars, sort_classes

FEW = {"dog": 20.0, "siren": None, "bell": 80.0, "a$b$": 50.0, "cat": math.nan}


def many(count, seed=0):
    values = np.random.default_rng(seed).uniform(0, 100, count)
    return {f"class_{index}-of-a-long-name": float(value) for index, value in enumerate(values)}


def bars(drawing, model=0):
    return [bar.get_width() for bar in drawing.figure.axes[0].containers[model]]


def test_bars_fall_from_the_top_and_are_as_long_as_they_say(draw):
    drawing = draw(class_bars, {"model": FEW}, 12)
    drawing.assert_legible()
    assert bars(drawing) == [80, 50, 20]
    axes = drawing.figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["bell", "a$b$", "dog"] and axes.yaxis_inverted()
    middles = [bar.get_y() + bar.get_height() / 2 for bar in axes.containers[0]]
    np.testing.assert_allclose(middles, axes.get_yticks())
    assert {"80.0", "50.0", "20.0"} <= set(drawing.texts)


def test_classes_without_ground_truth_stand_apart_from_bars_and_mean(draw):
    drawing = draw(class_bars, {"model": FEW}, 12)
    assert drawing.legend == ["model: mean 50.0 % of 3 classes"]
    (label,) = [text for text in drawing.texts if "IoU (%)" in text]
    assert "12 frames" in label and "(2): siren, cat" in label
    (line,) = drawing.figure.axes[0].lines
    assert line.get_xdata() == [50, 50]


def test_the_first_model_orders_all_of_them():
    models = {"a": {"x": 1, "y": 2, "z": None}, "b": {"x": 9, "z": 3, "y": 8, "w": None}}
    assert sort_classes(models) == (["y", "x", "z"], ["w"])
    assert sort_classes({}) == ([], [])


def test_models_stand_below_each_other_within_a_class(draw):
    other = {name: value and value / 2 for name, value in FEW.items()}
    drawing = draw(class_bars, {"first": FEW, "second": other, "third": other}, 12)
    drawing.assert_legible()
    assert bars(drawing, 1) == [40, 25, 10]
    places = [
        (bar.get_y(), bar.get_y() + bar.get_height())
        for place in zip(*drawing.figure.axes[0].containers)
        for bar in place
    ]
    assert all(bottom <= top + 1e-9 for (_, bottom), (top, _) in zip(places, places[1:]))
    assert [label.split(":")[0] for label in drawing.legend] == ["first", "second", "third"]


@pytest.mark.parametrize("count", [1, 2])
def test_seventy_classes_do_not_overlap(draw, count):
    models = {f"model {seed}": many(70, seed) for seed in range(count)}
    drawing = draw(class_bars, models, 12)
    drawing.assert_legible()
    assert set(models["model 0"]) <= set(drawing.texts)
    assert len(bars(drawing)) == 70
    assert len(drawing.picture) > len(class_bars({"model": many(35)}, 12)) + 35 * 15


@pytest.mark.parametrize("models", [{}, {"model": {}}, {"model": {"dog": None}}])
def test_without_any_class_it_says_so(draw, models):
    drawing = draw(class_bars, models, 0)
    drawing.assert_legible()
    assert "no class with ground truth" in drawing.texts


def test_one_class(draw):
    drawing = draw(class_bars, {"model": {"dog": 100.0}}, 1)
    drawing.assert_legible()
    assert bars(drawing) == [100]


def test_the_same_numbers_give_the_same_picture():
    models = {"model": many(5)}
    np.testing.assert_array_equal(class_bars(models, 3), class_bars(models, 3))
