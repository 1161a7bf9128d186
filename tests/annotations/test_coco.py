import json
import os

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from qdformer.annotations.formats import read_annotations
from qdformer.errors import InputError
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation


def label_map(segmentation, size=(9, 14)):
    item = AnnotatedObject(3, segmentation)
    return FrameAnnotation("masks.json", "a.png", size, (item,)).label_map()


@pytest.mark.parametrize("density", [0, 0.03, 0.5, 0.97, 1])
def test_run_lengths_are_read_as_pycocotools_writes_them(density):
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = tuple(rng.integers(1, 90, 2).tolist())
        mask = rng.random(size) < density
        written = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        for counts in (written["counts"], written["counts"].decode()):
            found = label_map({"size": list(size), "counts": counts}, size)
            np.testing.assert_array_equal(found, np.where(mask, 3, 0))


def test_numbers_and_polygons():
    rows, columns = np.mgrid[:9, :14]
    np.testing.assert_array_equal(label_map({"size": [9, 14], "counts": [9, 18, 99]}),
                                  np.where((columns == 1) | (columns == 2), 3, 0))  # fmt: skip
    inside = (2 <= columns) & (columns < 6) & (1 <= rows) & (rows < 4)
    inside |= (5 <= columns) & (columns < 9) & (2 <= rows) & (rows < 7)
    found = label_map([[2, 1, 6, 1, 6, 4, 2, 4], [5, 2, 9, 2, 9, 7, 5, 7]])
    np.testing.assert_array_equal(found, np.where(inside, 3, 0))


def test_the_last_object_lies_above_the_others():
    runs = {"size": [1, 3], "counts": [0, 2, 1]}
    items = AnnotatedObject(1, runs), AnnotatedObject(2, {**runs, "counts": [1, 2]})
    both = FrameAnnotation("m.json", "a.png", (1, 3), items)
    assert both.label_map().tolist() == [[1, 2, 2]]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [14, 9], "counts": [126]},
        {"size": [9, 14], "counts": [125]},
        {"size": [9, 14], "counts": [200, -74]},
        {"size": [9, 14], "counts": "\x01"},
        {"size": [9, 14], "counts": "oooooooooooooo"},
        {"size": [9, 14]},
        {"counts": [126]},
        {"size": [9, 14], "counts": "o" * 300_000},
        [[1, 2, 3]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, 1e9]],
        [["a", "b"]],
        [],
        [[20, 1, 30, 1, 30, 4]],
        [[1, 1, 3, 1, 3, 3], [1, -9, 3, -9, 3, -1]],
        17,
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation):
    with pytest.raises(InputError, match=r"masks.json \(a.png\): the segmentation of an object"):
        label_map(segmentation)


def content_of(names=("dog",), ids=None, height=4):
    categories = [{"id": k, "name": name} for k, name in zip(ids or range(999), names)]
    return json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": 4}],
        "annotations": [], "categories": categories,
    })  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "{}", '{"images": 1}', '{"images": [1]}',
        *(content_of(height=height) for height in (-1, 0, 2**70, 1e999, 10**7)),
        *(content_of(names) for names in ((), ("a", "a"), ("background",), (None,), ("",))),
        content_of(["a\x01"]), content_of(["\ud800"]),
        *(content_of().replace("a.png", name) for name in ("", "/", "a/..", "a" * 300, "a\\u0000")),
        content_of([f"c{k}" for k in range(255)]), content_of("ab", ids=(7, 7)),
    ],
)  # fmt: skip
def test_what_is_not_cocos_json_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match="a.json: is not COCO's or"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("images", "annotation", "words"),
    [
        ([1], {"image_id": 2}, "an object is of image 2, which is not listed"),
        ([1, 2], None, "two images have the file_name 'a.png'"),
        ([1, 1], None, "image 1 is listed twice"),
        ([1], {"image_id": 1, "track_id": 1.5}, "a track has the number 1.5"),
        ([1], {"image_id": 1, "segmentation": None, "attributes": None}, ""),
        ([1], {"image_id": 1, "track_id": "x"}, "is not COCO's"),
        ([1], {"image_id": 1, "category_id": 3}, "an object is of category 3, which is not listed"),
    ],
)
def test_nothing_is_lost_in_silence(tmp_path, images, annotation, words):
    content = json.loads(content_of())
    content["images"] = [content["images"][0] | {"id": number} for number in images]
    if annotation:
        content["annotations"] = [{"category_id": 0, "segmentation": [], **annotation}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    if words:
        with pytest.raises(InputError, match=words):
            read_annotations(path)
    else:
        assert len(read_annotations(path).frames["a.png"].objects) == 1


def test_youtube_vis_lists_its_videos_and_frames_once(tmp_path):
    video = {"id": 1, "file_names": ["v/0.jpg"], "height": 4, "width": 4}
    track = {"id": 1, "video_id": 5, "category_id": 1, "segmentations": [None]}
    path = tmp_path / "a.json"
    for changes, words in (
        ({"annotations": [track]}, "of video 5, which is not listed"),
        ({"videos": [video, video | {"file_names": ["w/0.jpg"]}]}, "video 1 is listed twice"),
        ({"videos": [video, video | {"id": 2}]}, "two frames have the name 'v/0.jpg'"),
        ({"annotations": [track | {"video_id": 1, "segmentations": []}]}, "has 0 segmentations"),
        ({"annotations": [track | {"category_id": 4}]}, "of category 4, which is not listed"),
        ({"annotations": [track | {"video_id": 1, "score": "x", "segmentations": [1]}]}, "float"),
        ({"videos": [{"id": 1}]}, "it has no 'height'"),
    ):
        content = {"videos": [video], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
        path.write_text(json.dumps(content | changes))
        with pytest.raises(InputError, match=words):
            read_annotations(path)


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "a.json"
    for name in ("dog", "cat"):
        path.write_text(json.dumps({"images": [], "annotations": [],
                                    "categories": [{"id": 1, "name": name}]}))  # fmt: skip
        os.utime(path, ns=(len(name), ord(name[0])))
        assert read_annotations(path).classes == (name,)
