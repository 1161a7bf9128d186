"""A yaml beside one's own clips is all that a data set takes."""

import json
import re

import numpy as np
import pytest
import soundfile
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from qdformer import register_avs_dataset
from qdformer.annotations.document import Annotations
from qdformer.annotations.formats import write_annotations
from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.data.datasets.described import register_described
from qdformer.data.datasets.registration import check_records
from qdformer.engine.setup import load_records
from qdformer.errors import InputError
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation
from qdformer.io.image import read_label_map
from qdformer.io.run_lengths import encode

SIZE = (12, 20)
TEXT = "classes: [dog, car]\nsplits:\n  train: ['clips/a*']\n  test: clips/b\n"


def labels_of(clip, t):
    labels = np.zeros(SIZE, np.uint8)
    labels[t : t + 4, 2:9] = 1 + (clip == "b")
    return labels


@pytest.fixture
def root(tmp_path):
    """Clips of 11 frames, so that names in the order of the alphabet are not in time's."""
    for clip in ("a1", "a2", "b"):
        folder = tmp_path / "clips" / clip
        for part in ("frames", "masks"):
            (folder / part).mkdir(parents=True)
        for t in range(11):
            Image.new("RGB", SIZE[::-1], (20 * t, 0, 0)).save(folder / f"frames/{t}.jpg")
            if t != 10:
                Image.fromarray(labels_of(clip, t % 8)).save(folder / f"masks/{t}.png")
        soundfile.write(folder / "audio.wav", np.zeros(16000), 16000)
    (tmp_path / "dataset.yaml").write_text(TEXT)
    yield tmp_path
    for name in [name for name in DatasetCatalog.list() if name.startswith("described_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_clips_are_found_and_read(root):
    register_described("described", root)
    register_described("described", root)  # once more is the same
    assert [record["video_id"] for record in load_records("described_train")] == [
        "clips/a1", "clips/a2"
    ]  # fmt: skip
    (record,) = load_records("described_test")
    assert (record["height"], record["width"], record["label_format"]) == (*SIZE, "index")
    assert MetadataCatalog.get("described_test").stuff_classes == ["background", "dog", "car"]
    assert record["sem_seg_file_names"][10] is None
    for t in range(10):
        found = read_label_map(record["sem_seg_file_names"][t], record["label_format"])
        np.testing.assert_array_equal(found, labels_of("b", t % 8))


def test_masks_may_be_a_file_of_annotations(root):
    """As demo.py leaves a video, with its masks corrected."""
    frames = {}
    for t in range(11):
        name, runs = f"frames/{t}.jpg", encode(labels_of("b", t % 8) > 0)
        frames[name] = FrameAnnotation("", name, SIZE, (AnnotatedObject(2, runs),))
    write_annotations(Annotations(("dog", "car"), frames), "coco", root / "clips" / "b")
    (root / "dataset.yaml").write_text(TEXT + "masks: annotations.json\n")
    register_described("described", root)
    (record,) = load_records("described_test")
    found = read_label_map(record["sem_seg_file_names"][7], record["label_format"])
    np.testing.assert_array_equal(found, labels_of("b", 7))
    (root / "dataset.yaml").write_text(
        TEXT.replace("dog, car", "car, dog") + "masks: annotations.json"
    )
    register_described("described_other", root)
    with pytest.raises(InputError, match="has the classes dog, car"):
        load_records("described_other_test")


def test_no_annotated_frame_is_dropped(root):
    names = [f"frames/{t}.jpg" for t in range(12)]
    frames = {name: FrameAnnotation("", name, SIZE, ()) for name in names}
    write_annotations(Annotations(("dog", "car"), frames), "coco", root / "clips" / "b")
    (root / "dataset.yaml").write_text(TEXT + "masks: annotations.json\n")
    register_described("described", root)
    with pytest.raises(InputError, match="annotates frames/11.jpg, which is no frame of"):
        load_records("described_test")


def test_a_clip_in_two_splits_is_told(root, caplog):
    (root / "dataset.yaml").write_text(TEXT.replace("clips/b", "[clips/b, clips/a1]"))
    register_described("described", root)
    load_records("described_train")
    assert "1 clips of train are in test, too" in caplog.text


def test_one_description_a_root(root):
    (root / "dataset.yml").write_text(TEXT)
    with pytest.raises(InputError, match="dataset.yaml and .*dataset.yml both describe"):
        register_described("described", root)
    (root / "dataset.yaml").unlink()
    register_described("described", root)
    assert len(load_records("described_train")) == 2


def test_gaps_may_be_wide(root):
    clip = root / "clips" / "b"
    (clip / "frames/10.jpg").rename(clip / "frames/20231127183732000.jpg")
    register_described("described", root)
    with pytest.raises(InputError, match="has no frame 10 between 9 and 20231127183732000"):
        load_records("described_test")


def test_json_serves_as_well(root):
    (root / "dataset.yaml").unlink()
    text = '{"classes": ["a"], "classes": ["b"]}'
    (root / "dataset.json").write_text(text)
    with pytest.raises(InputError, match="has 'classes' twice"):
        register_described("described", root)
    content = {"classes": ["\N{GUITAR}"], "splits": {"train": ["clips/*"]}}
    (root / "dataset.json").write_text(json.dumps(content, indent="\t"))
    register_described("described", root)
    records = load_records("described_train")
    assert len(records) == 3 and records[0]["label_format"] == "binary"
    assert MetadataCatalog.get("described_train").stuff_classes[1] == "\N{GUITAR}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("classes", "names"), "give classes and splits"),
        (("clips/b", "../b"), "from .* on"),
        (("clips/b", "clips/c"), "no folder fits 'clips/c'"),
        (("test:", "a-b:"), "the split 'a-b'"),
        (("test:", "on:"), "the split True"),
        (("classes:", "frames: 3\nclasses:"), "frames has 3"),
        (("classes:", "label_format: rgb\nclasses:"), "label_format is 'rgb'"),
        (("classes:", "sound: a.flac\nclasses:"), "a.flac: the sound"),
        (("classes:", "frames: '*.bmp'\nclasses:"), "no file fits '*.bmp'"),
        (("classes:", "masks: '*.bmp'\nclasses:"), "no '*.bmp' has the number"),
        (("[dog, car]", "[dog, dog]"), "each once"),
        (("[dog, car]", "[dog"), "cannot be read"),
        (("[dog, car]", "[" * 20000), "cannot be read"),
        (("[dog, car]", "[1, 2]"), "in quotes"),
        (("splits:", "classes: [cow]\nsplits:"), "has 'classes' twice"),
        (("  test:", "  train: clips/b\n  test:"), "has 'train' twice"),
        (("[dog, car]", "[!!bool foo]"), "cannot be read"),
        (("[dog, car]", '[!!int ""]'), "cannot be read"),
        (("[dog, car]", "[!!timestamp foo]"), "cannot be read"),
        (("[dog, car]", "[&a dog, *a]"), "has an alias"),
        (("clips/b", "b" * 300), "the split 'test' has"),
        (("classes:", f"frames: {'f' * 300}\nclasses:"), "frames has 'fff"),
        (("clips/b", "clips/b**"), "'clips/b**' is no pattern"),
        (("clips/b", "."), "'.' is no pattern"),
        (("classes:", "frames: 'frames/**.jpg'\nclasses:"), "'frames/**.jpg' is no pattern"),
        (("classes:", "label_format: coco\nclasses:"), "label_format is 'coco'"),
        (("classes:", "frames: 'frames/[!4].jpg'\nclasses:"), "has no frame 4 between"),
    ],
)
def test_what_is_wrong_is_named(root, change, message):
    (root / "dataset.yaml").write_text(TEXT.replace(*change))
    with pytest.raises(InputError, match=re.escape(message).replace(r"\.\*", ".*")):
        register_described("described", root)
        load_records("described_test")


def test_three_keys_are_enough_in_python(root):
    """The rest has defaults; what is missing for good is told as ever."""
    clip = root / "clips" / "b"
    record = {
        "file_names": [str(clip / f"frames/{t}.jpg") for t in range(3)],
        "sem_seg_file_names": [str(clip / f"masks/{t}.png") for t in range(3)],
        "audio_file_name": str(clip / "audio.wav"),
    }
    register_avs_dataset("described_own", [record, record], ["dog", "car"])
    records = DatasetCatalog.get("described_own")
    check_records("described_own", records)
    assert [r["video_id"] for r in records] == ["described_own_00000", "described_own_00001"]
    mapper = AVSDatasetMapper(
        is_train=True, augmentations=[], image_format="RGB", palette=None, num_classes=2,
        num_frames=5,
    )  # fmt: skip
    mapped = mapper(records[0])
    assert mapped["image"].shape == (3, 3, *SIZE)
    assert mapped["instances"][0].gt_classes.tolist() == [1]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"file_names": []}], "no sem_seg_file_names"),
        (None, "has the records None"),
        ({}, "has the records {}"),
        ([], "has the records"),
        (np.zeros(3), "has the records"),
        (["a"], "its clip 0 is 'a'"),
        ([{"heigth": 3}], "has 'heigth'; write 'height'"),
        ([{"file_names": None}], "no sem_seg_file_names"),
        ([{"file_names": np.array(["a"])}], "no sem_seg_file_names"),
    ],
)
def test_records_of_another_kind_are_refused(records, message):
    register_avs_dataset("described_broken", records, ["dog"])
    try:
        with pytest.raises(InputError, match=message):
            check_records("described_broken", DatasetCatalog.get("described_broken"))
    finally:
        DatasetCatalog.remove("described_broken")
        MetadataCatalog.remove("described_broken")
