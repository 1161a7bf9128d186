"""DAVIS's and YouTube-VOS's folders, and AVSBench's class masks, as folders of annotations."""

import json

import numpy as np
import pytest
from PIL import Image

from qdformer.annotations.formats import find_pictures, read_annotations
from qdformer.errors import InputError


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, np.uint8)).save(path)


def test_objects_have_the_categories_of_their_video(tmp_path):
    """YouTube-VOS: numbers are of a video's objects; 255 is void."""
    save(tmp_path / "Annotations/aa/00000.png", [[0, 1, 2], [255, 2, 3]])
    save(tmp_path / "Annotations/bb/00005.png", [[1, 1, 0]])
    objects = {
        "aa": {"1": {"category": "dog"}, "2": {"category": "car"}, "3": {"category": "dog"}},
        "bb": {"1": {"category": "car"}},
    }
    videos = {name: {"objects": items} for name, items in objects.items()}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}))
    for folder in (tmp_path, tmp_path / "Annotations"):
        found = read_annotations(folder)
        assert found.classes == ("car", "dog")
        assert found.frames["aa/00000.png"].label_map().tolist() == [[0, 2, 1], [0, 1, 2]]
        assert [item.track for item in found.frames["aa/00000.png"].objects] == [1, 2, 3]
        assert found.frames["bb/00005.png"].label_map().tolist() == [[1, 1, 0]]
    alone = read_annotations(tmp_path / "Annotations/bb")
    assert [*alone.frames] == ["00005.png"]


def test_numbers_may_be_classes(tmp_path):
    save(tmp_path / "masks/0.png", [[0, 2]])
    (tmp_path / "label2idx.json").write_text('{"background": 0, "dog": 1, "car": 2}')
    found = read_annotations(tmp_path / "masks")
    assert found.classes == ("dog", "car")
    assert found.frames["0.png"].label_map().tolist() == [[0, 2]]


def test_pictures_and_other_sizes_are_not_taken_for_masks(tmp_path):
    save(tmp_path / "Annotations/480p/aa/00000.PNG", [[0, 1]])
    save(tmp_path / "JPEGImages/480p/aa/00000.png", [[9, 9]])
    (tmp_path / "meta.json").write_text(
        '{"videos": {"aa": {"objects": {"1": {"category": "dog"}}}}}'
    )
    (name,) = read_annotations(tmp_path).frames
    assert name == "aa/00000.PNG"
    found = read_annotations(tmp_path / "Annotations")
    pictures = find_pictures(found, tmp_path / "Annotations/480p")
    assert pictures == {name: tmp_path / "JPEGImages/480p/aa/00000.png"}
    save(tmp_path / "Annotations/1080p/aa/00000.PNG", [[0, 1]])
    with pytest.raises(InputError, match="is of the frame aa/00000.PNG, and so is .*1080p"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [({"dog": 1, "car": 1}, "two classes have one number"), ({"dog": 0}, "the number 0 is not")],
)
def test_each_class_has_a_number_of_its_own(tmp_path, numbers, words):
    save(tmp_path / "masks/0.png", [[0, 1]])
    (tmp_path / "label2idx.json").write_text(json.dumps(numbers))
    with pytest.raises(InputError, match=words):
        read_annotations(tmp_path / "masks")


def test_what_is_not_told_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="holds no png"):
        read_annotations(tmp_path)
    save(tmp_path / "masks/0.png", [[0, 2]])
    with pytest.raises(InputError, match="meta.json"):
        read_annotations(tmp_path / "masks")
    (tmp_path / "label2idx.json").write_text('{"background": 0, "dog": 1}')
    with pytest.raises(InputError, match="object 2, of which"):
        read_annotations(tmp_path / "masks")
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(InputError, match="masks"):
        read_annotations(tmp_path / "masks")
