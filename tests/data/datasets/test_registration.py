import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from qdformer.data.datasets.registration import RECORD_KEYS, check_records, complete_metadata
from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation


def record(**changes):
    values = dict.fromkeys(RECORD_KEYS, "x") | {"file_names": ["a"], "sem_seg_file_names": [None]}
    values |= {"height": 3, "width": 4, "label_format": "index"}
    return values | changes


@pytest.mark.parametrize(
    ("classes", "evaluator"),
    [(["background", "object"], "avs_object"), (["background", "cat", "dog"], "avs_semantic")],
)
def test_classes_alone_are_enough(classes, evaluator):
    name = f"contract_{len(classes)}"
    MetadataCatalog.get(name).set(stuff_classes=classes)
    complete_metadata(name)
    metadata = MetadataCatalog.get(name)
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, evaluator)
    assert metadata.stuff_colors[:2] == [(0, 0, 0), (128, 0, 0)]
    assert len(metadata.stuff_colors) == len(classes)
    complete_metadata(name)  # what is there stays


def test_what_is_given_is_kept():
    given = {"stuff_colors": [(1, 2, 3), (4, 5, 6)], "ignore_label": 7, "evaluator_type": "mine"}
    MetadataCatalog.get("contract_own").set(stuff_classes=["background", "cat"], **given)
    complete_metadata("contract_own")
    assert {key: MetadataCatalog.get("contract_own").get(key) for key in given} == given


def test_metadata_that_cannot_be_completed():
    with pytest.raises(InputError, match="contract_none.*stuff_classes"):
        complete_metadata("contract_none")
    MetadataCatalog.get("contract_odd").set(
        stuff_classes=["background", "cat"], stuff_colors=[(0,)]
    )
    with pytest.raises(InputError, match="1 stuff_colors and 2"):
        complete_metadata("contract_odd")


@pytest.mark.parametrize("key", RECORD_KEYS)
def test_a_missing_key_is_named_with_its_clip(key):
    broken = record()
    del broken[key]
    with pytest.raises(InputError, match=f"'mine'.* no {key}"):
        check_records("mine", [record(), broken])


def test_as_many_label_maps_as_frames():
    check_records("mine", [record()])
    for changes in ({"sem_seg_file_names": []}, {"file_names": [], "sem_seg_file_names": []}):
        with pytest.raises(InputError, match="sem_seg_file_names"):
            check_records("mine", [record(**changes)])


@pytest.mark.parametrize(
    "changes",
    [{"label_format": "foo"}, {"audio_file_name": None}, {"height": "64"}, {"video_id": 5},
     {"file_names": "a.png"}, {"file_names": [3]}, {"sem_seg_file_names": [3]}],
)  # fmt: skip
def test_values_that_would_end_a_run_later(changes):
    (key,) = changes
    with pytest.raises(InputError, match=f"'mine'.* (has the {key} |in {key}, )"):
        check_records("mine", [record(**changes)])


def test_masks_are_what_their_format_says():
    """Annotated frames are "coco" and nothing else is."""
    frame = FrameAnnotation("a.json", "a.png", (3, 4), ())
    check_records("mine", [record(label_format="coco", sem_seg_file_names=[frame])])
    for label_format, mask in (("coco", "a.png"), ("index", frame)):
        with pytest.raises(InputError, match=f"in sem_seg_file_names, of {label_format}"):
            check_records("mine", [record(label_format=label_format, sem_seg_file_names=[mask])])


def test_sizes_are_whole_numbers_above_zero():
    check_records("mine", [record(height=np.int64(3))])
    with pytest.raises(InputError, match="is 4 x -3 pixels"):
        check_records("mine", [record(height=-3)])


def test_clips_have_names_of_their_own():
    with pytest.raises(InputError, match="two clips have the video_id 'x'"):
        check_records("mine", [record(), record()])
