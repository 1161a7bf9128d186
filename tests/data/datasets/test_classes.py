import json

import pytest

from qdformer.data.datasets.classes import AVSS_CLASSES, read_classes
from qdformer.errors import InputError
from qdformer.io.palette import class_palette


def test_class_list_is_the_published_one():
    assert len(AVSS_CLASSES) == len(set(AVSS_CLASSES)) == 71
    expected = {0: "background", 4: "baby", 17: "dog", 28: "guitar", 43: "missile-rocket"}
    expected |= {35: "helicopter", 36: "hen", 49: "pipa", 67: "vacuum-cleaner", 70: "woman"}
    assert {index: AVSS_CLASSES[index] for index in expected} == expected
    assert list(AVSS_CLASSES[1:]) == sorted(AVSS_CLASSES[1:])


def test_palette_has_the_published_colors():
    palette = class_palette(71)
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 4: (0, 0, 128), 7: (128, 128, 128), 8: (64, 0, 0)}
    expected |= {28: (64, 64, 128), 35: (128, 128, 64), 36: (0, 0, 192), 49: (128, 64, 64)}
    expected |= {63: (192, 192, 192), 64: (32, 0, 0), 66: (32, 128, 0), 70: (32, 128, 128)}
    assert {index: tuple(palette[index].tolist()) for index in expected} == expected


def test_colors_are_distinct():
    assert len(set(map(tuple, class_palette(256).tolist()))) == 256


def test_classes_are_ordered_by_index(tmp_path):
    path = tmp_path / "label2idx.json"
    path.write_text(json.dumps({"zebra": 1, "ape": 2, "background": 0}))
    assert read_classes(path) == ("background", "zebra", "ape")


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[1, 2]",
        "{}",
        '{"background": 0, "ape": 2}',
        '{"background": 1, "ape": 0}',
        '{"background": 0, "ape": 1, "bee": 1}',
        '{"ground": 0, "ape": 1}',
        '{"background": 0, "ape": [1]}',
        json.dumps({"background": 0} | {f"class {i}": i for i in range(1, 256)}),
    ],
)
def test_unusable_class_lists_are_refused(tmp_path, content):
    path = tmp_path / "label2idx.json"
    path.write_text(content)
    with pytest.raises(InputError, match="label2idx.json"):
        read_classes(path)


def test_missing_class_list_is_named(tmp_path):
    with pytest.raises(InputError, match="label2idx.json: no such file"):
        read_classes(tmp_path / "label2idx.json")
