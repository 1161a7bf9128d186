"""CVAT's XML as its documentation and code write it."""

import numpy as np
import pytest

from qdformer.annotations.formats import read_annotations
from qdformer.errors import InputError

# A disk of 13 x 15 pixels, the example of CVAT's description of its format.
RLE = (
    "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3"
)

IMAGES = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>dog</name></label><label><name>car</name></label></labels></task></meta>
<image id="0" name="a.jpg" width="40" height="30">
 <mask label="car" source="manual" occluded="0" rle="{RLE}" left="7" top="8" width="13" height="15" z_order="1"></mask>
 <polygon label="dog" source="manual" occluded="0" points="2.00,1.00;20.00,1.00;20.00,12.00;2.00,12.00" z_order="0"></polygon>
</image>
<image id="1" name="b.jpg" width="40" height="30"></image>
</annotations>"""  # noqa: E501

VIDEO = """<annotations><version>1.1</version>
<meta><task><start_frame>4</start_frame><stop_frame>10</stop_frame><frame_filter>step=2</frame_filter>
<labels><label><name>dog</name></label></labels>
<original_size><width>40</width><height>30</height></original_size></task></meta>
<track id="5" label="dog" source="manual">
 <polygon frame="4" keyframe="1" outside="0" occluded="0" points="0.0,0.0;9.0,0.0;9.0,9.0;0.0,9.0" z_order="0"></polygon>
 <polygon frame="6" keyframe="0" outside="0" occluded="0" points="1.0,0.0;10.0,0.0;10.0,9.0;1.0,9.0" z_order="0"></polygon>
 <polygon frame="8" keyframe="1" outside="1" occluded="0" points="1.0,0.0;10.0,0.0;10.0,9.0;1.0,9.0" z_order="0"></polygon>
</track></annotations>"""  # noqa: E501


def write(tmp_path, text):
    path = tmp_path / "annotations.xml"
    path.write_text(text)
    return path


def test_images(tmp_path):
    found = read_annotations(write(tmp_path, IMAGES))
    assert found.classes == ("dog", "car") and [*found.frames] == ["a.jpg", "b.jpg"]
    rows, columns = np.mgrid[:30, :40]
    runs = [int(run) for run in RLE.split(",")]
    disk = np.zeros((30, 40), bool)
    place, value = 0, False
    for run in runs:  # along the rows of the box, one pixel after the other
        for pixel in range(place, place + run):
            disk[8 + pixel // 13, 7 + pixel % 13] = value
        place, value = place + run, not value
    box = (rows >= 1) & (rows < 12) & (columns >= 2) & (columns < 20)
    expected = np.where(disk, 2, np.where(box, 1, 0))  # the higher z order lies above
    np.testing.assert_array_equal(found.frames["a.jpg"].label_map(), expected)
    assert not found.frames["b.jpg"].objects


def test_frames_of_a_video_are_those_of_its_task(tmp_path):
    found = read_annotations(write(tmp_path, VIDEO))
    assert [*found.frames] == [f"frame_{n:06d}" for n in (4, 6, 8, 10)]
    assert [[item.track for item in f.objects] for f in found.frames.values()] == [[5], [5], [], []]
    np.testing.assert_array_equal(
        np.flatnonzero(found.frames["frame_000006"].label_map().any(0)), np.arange(1, 10)
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("polygon", "box", "has a box, which says nothing"),
        ("3, 5, 7", "4, 5, 7", "does not cover its 13 x 15"),
        ('left="7"', 'left="30"', "leaves its frame of 40 x 30"),
        ('label="dog"', 'label="cat"', "'cat', which is none"),
        ('height="30"', "", "is not CVAT's XML"),
        ("</annotations>", "", "is not CVAT's XML"),
        ("annotations>", "notes>", "is notes"),
        ('encoding="utf-8"', 'encoding="klingon"', "is not CVAT's XML"),
        ('width="40" height="30"', 'width="60000" height="60000"', "is 60000 x 60000 pixels"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path, IMAGES.replace(old, new)))


def test_a_video_in_which_nothing_was_drawn_is_silent(tmp_path):
    begin, end = VIDEO.index("<track"), VIDEO.index("</track>") + len("</track>")
    found = read_annotations(write(tmp_path, VIDEO[:begin] + VIDEO[end:]))
    assert [*found.frames] == [f"frame_{n:06d}" for n in (4, 6, 8, 10)]
    assert not any(frame.objects for frame in found.frames.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<stop_frame>10<", "<stop_frame>99999999999<", "more than 250,000"),
        ("step=2", "step=0", "is not CVAT's XML"),
        ("<original_size>", "<size>", "is not CVAT's XML"),
        ('frame="4"', 'frame="5"', "is in frame_000005, which is none of its frames"),
    ],
)
def test_tasks_that_cannot_be_are_refused(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path, VIDEO.replace(old, new)))


def test_images_have_names_of_their_own(tmp_path):
    with pytest.raises(InputError, match="two images have the name 'a.jpg'"):
        read_annotations(write(tmp_path, IMAGES.replace("b.jpg", "a.jpg")))
