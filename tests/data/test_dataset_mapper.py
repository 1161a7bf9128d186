import copy
import math

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T

from qdformer.audio.log_mel import clip_log_mel
from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.errors import InputError
from qdformer.io.image import read_image, read_label_map
from tests.samples import small_config

NAMES = ("tiny_avss_train", "tiny_ms3_train", "tiny_s4_train")


def records(name):
    return copy.deepcopy(DatasetCatalog.get(name))


def make(name="tiny_avss_train", **options):
    records(name)  # sets the classes
    metadata = MetadataCatalog.get(name)
    settings = {
        "is_train": True,
        "augmentations": [],
        "image_format": "RGB",
        "palette": metadata.stuff_colors,
        "num_classes": len(metadata.stuff_classes) - 1,
        "num_frames": 5,
    }
    return AVSDatasetMapper(**(settings | options))


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_is_what_its_files_hold(composed, name):
    for record in records(name)[:3]:
        clip = make(name)(record)
        frames = len(record["file_names"])
        images = [read_image(file).transpose(2, 0, 1) for file in record["file_names"]]
        assert torch.equal(clip["image"], torch.from_numpy(np.stack(images)))
        torch.testing.assert_close(clip["audio"], clip_log_mel(record["audio_file_name"], frames))
        palette = MetadataCatalog.get(name).stuff_colors
        for t, file in enumerate(record["sem_seg_file_names"]):
            assert bool(clip["annotated"][t]) == (file is not None)
            painted = torch.zeros(clip["image"].shape[-2:], dtype=torch.uint8)
            instances = clip["instances"][t]
            for mask, label in zip(instances.gt_masks.tensor, instances.gt_classes):
                painted[mask] = int(label) + 1
            if file is not None:
                labels = read_label_map(file, record["label_format"], palette)
                assert torch.equal(painted, torch.from_numpy(labels))


def test_all_frames_list_the_same_objects(composed):
    clip = make()(records("tiny_avss_train")[0])
    classes = [instances.gt_classes.tolist() for instances in clip["instances"]]
    assert classes == [classes[0]] * 3


def test_one_augmentation_draw_a_clip(composed):
    record = records("tiny_avss_train")[1]
    plain = make()(record)
    flips = set()
    for seed in range(12):
        np.random.seed(seed)
        clip = make(augmentations=[T.RandomFlip()])(record)
        flipped = [torch.equal(clip["image"][t], plain["image"][t].flip(-1)) for t in range(3)]
        masks = [
            torch.equal(
                clip["instances"][t].gt_masks.tensor,
                plain["instances"][t].gt_masks.tensor.flip(-1),
            )
            for t in range(3)
        ]
        same = [torch.equal(clip["image"][t], plain["image"][t]) for t in range(3)]
        assert flipped == [True] * 3 or same == [True] * 3
        if flipped == [True] * 3:
            assert masks == [True] * 3
        flips.add(flipped[0])
    assert flips == {True, False}


COLORS = [T.RandomBrightness(0.3, 1.9), T.RandomContrast(0.3, 1.9)]


@pytest.mark.parametrize(
    "augmentations",
    [
        [T.ResizeShortestEdge(64), *COLORS],
        [T.ResizeShortestEdge(80), *COLORS, T.RandomFlip(), *COLORS],
        [COLORS[0], T.RandomSaturation(0.3, 1.9), T.RandomLighting(20), COLORS[1]],
    ],
)
def test_frames_are_what_detectron2_makes_of_them(composed, augmentations):
    record = records("tiny_avss_train")[0]
    frames = [read_image(file) for file in record["file_names"]]
    for seed in range(8):
        np.random.seed(seed)
        transforms = T.AugmentationList(augmentations)(T.AugInput(frames[0]))
        expected = np.stack([transforms.apply_image(frame) for frame in frames])
        np.random.seed(seed)
        clip = make(is_train=False, augmentations=augmentations)(record)
        assert np.array_equal(clip["image"].permute(0, 2, 3, 1).numpy(), expected)


def test_longer_clips_are_cut_with_their_sound(composed):
    record = records("tiny_avss_train")[0]
    whole = make()(record)
    starts = set()
    for seed in range(10):
        np.random.seed(seed)
        clip = make(num_frames=2)(record)
        start = record["file_names"].index(clip["file_names"][0])
        starts.add(start)
        assert torch.equal(clip["image"], whole["image"][start : start + 2])
        assert torch.equal(clip["audio"], whole["audio"][start : start + 2])
        assert len(clip["instances"]) == len(clip["annotated"]) == 2
    assert starts == {0, 1}


def test_a_cut_keeps_an_annotated_frame(composed):
    record = records("tiny_s4_train")[0]
    assert [name is not None for name in record["sem_seg_file_names"]] == [True, False, False]
    for seed in range(5):
        np.random.seed(seed)
        assert make("tiny_s4_train", num_frames=1)(record)["annotated"].tolist() == [True]


def test_evaluation_reads_no_labels_and_cuts_nothing(composed):
    clip = make(is_train=False, num_frames=1)(records("tiny_avss_train")[0])
    assert len(clip["image"]) == 3 and "instances" not in clip


def test_gain_of_the_sound(composed):
    mapper, quiet = make(audio_gain=6.0), make()
    record = records("tiny_avss_train")[0]
    np.random.seed(0)
    magnitude = mapper(record)["audio"].exp() - 0.01
    factor = 10 ** (np.random.RandomState(0).uniform(-6, 6) / 20)
    expected = (quiet(record)["audio"].exp() - 0.01) * factor
    loud = expected > 0.1
    assert (magnitude[loud] / expected[loud]).std() < 1e-3
    assert abs(float(20 * torch.log10((magnitude / (expected / factor))[loud].median()))) <= 6


def test_the_record_is_left_as_it_was(composed):
    record = records("tiny_avss_train")[0]
    before = copy.deepcopy(record)
    make(num_frames=1)(record)
    assert record == before


def test_bgr(composed):
    record = records("tiny_avss_train")[0]
    assert torch.equal(make(image_format="BGR")(record)["image"], make()(record)["image"].flip(1))


@pytest.fixture
def broken(composed, tmp_path):
    """A record whose files can be exchanged without touching the data set."""
    record = records("tiny_avss_train")[0]
    record["spare"] = tmp_path
    return record


def exchange(record, key, index, picture):
    path = str(record["spare"] / f"{key}.png")
    if picture is None:
        (record["spare"] / f"{key}.png").write_bytes(b"not a picture")
    else:
        cv2.imwrite(path, picture)
    record[key][index] = path
    return path


BROKEN = [
    ("file_names", 1, None, "file_names.png"),
    (
        "file_names",
        1,
        np.zeros((32, 64, 3), np.uint8),
        "64 x 32 pixels, but the clip's first frame",
    ),
    ("sem_seg_file_names", 0, np.zeros((32, 64), np.uint8), "64 x 32 pixels, but its frame has"),
    ("sem_seg_file_names", 0, np.full((64, 64), 9, np.uint8), "label 9"),
    ("sem_seg_file_names", 0, None, "sem_seg_file_names.png"),
]


@pytest.mark.parametrize(("key", "index", "picture", "message"), BROKEN)
def test_bad_files_are_named(broken, key, index, picture, message):
    path = exchange(broken, key, index, picture)
    with pytest.raises(InputError, match=message) as caught:
        make()(broken)
    assert path in str(caught.value) or broken["video_id"] in str(caught.value)


@pytest.mark.parametrize("value", [-100.0, -4.605170, -4.6, 0.0, 80.0, 100.0])
@pytest.mark.parametrize("gain", [-20.0, 0.001, 20.0])
def test_gain_is_that_of_the_magnitudes_however_loud(monkeypatch, value, gain):
    monkeypatch.setattr(np.random, "uniform", lambda low, high: gain)
    found = make(audio_gain=20.0)._change_gain(torch.full((3,), value))
    magnitude = max(math.exp(value) - 0.01, 0)
    expected = math.log(magnitude * 10 ** (gain / 20) + 0.01)
    torch.testing.assert_close(found, torch.full((3,), expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 3)])
def test_frames_of_every_shape_are_resized(broken, is_train, size):
    cfg = small_config("INPUT.MIN_SIZE_TRAIN", (48,), "INPUT.MAX_SIZE_TRAIN", 96)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 48, 96
    for key in ("file_names", "sem_seg_file_names"):
        value = np.full(size, 1 if key[0] == "s" else 99, np.uint8)
        broken[key] = [exchange(broken, key, 0, value)] * 300
    clip = AVSDatasetMapper(cfg, is_train)(broken)
    expected = {(1, 1): (48, 48), (2, 3): (48, 72), (1, 4000): (1, 96), (4000, 1): (96, 1)}[size]
    assert clip["image"].shape[-2:] == expected and (clip["image"] == 99).all()
    assert len(clip["audio"]) == len(clip["image"]) == (5 if is_train else 300)
    if is_train:
        masks = [instances.gt_masks.tensor for instances in clip["instances"]]
        assert all(mask.shape == (1, *expected) and mask.all() for mask in masks)


def test_labels_of_no_object(broken):
    for value in (0, 255):
        broken["sem_seg_file_names"] = [
            exchange(broken, "sem_seg_file_names", 0, np.full((64, 64), value, np.uint8))
        ] * 3
        clip = make()(broken)
        assert clip["annotated"].all() and not any(map(len, clip["instances"]))
