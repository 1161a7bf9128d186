import json
import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from qdformer.audio.log_mel import clip_log_mel
from qdformer.data.datasets.avsbench import load_avs, register_avs
from qdformer.data.datasets.classes import AVSS_CLASSES
from qdformer.errors import InputError
from qdformer.io.image import read_image, read_label_map
from qdformer.io.palette import class_palette

SPLITS = ("train", "val", "test")


@pytest.fixture
def register(request):
    """register_avs, undone after the test."""
    names = []

    def register_and_remember(prefix, *args):
        register_avs(prefix, *args)
        names.extend(name for name in DatasetCatalog.list() if name.startswith(f"{prefix}_"))

    yield register_and_remember
    for name in set(names):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def frame_numbers(record):
    """What the fixtures painted into the frames."""
    return [round(read_image(path).mean() / 20) for path in record["file_names"]]


def is_annotated(record):
    return [path is not None for path in record["sem_seg_file_names"]]


def test_s4(avsbench_tree_s4):
    root = avsbench_tree_s4 / "Single-source/s4_data"
    first, second = load_avs(avsbench_tree_s4, "s4", "train")
    clip = "train/dog_barking/-a_1"
    assert first == {
        "file_names": [f"{root}/visual_frames/{clip}/-a_1_{k}.png" for k in range(1, 6)],
        "audio_file_name": f"{root}/audio_wav/{clip}.wav",
        "sem_seg_file_names": [f"{root}/gt_masks/{clip}/-a_1_1.png", None, None, None, None],
        "label_format": "binary",
        "video_id": "-a_1",
        "height": 16,
        "width": 24,
        "subset": "s4",
    }
    assert second["video_id"] == "b_2"
    for split, name in [("val", "c"), ("test", "d")]:
        (record,) = load_avs(avsbench_tree_s4, "s4", split)
        assert record["video_id"] == name
        assert is_annotated(record) == [True] * 5 and frame_numbers(record) == [1, 2, 3, 4, 5]


def test_ms3(avsbench_tree_ms3):
    root = avsbench_tree_ms3 / "Multi-sources/ms3_data"
    (record,) = load_avs(avsbench_tree_ms3, "ms3", "train")
    assert record == {
        "file_names": [f"{root}/visual_frames/x_1_y/x_1_y.mp4_{k}.png" for k in range(1, 6)],
        "audio_file_name": f"{root}/audio_log_mel/train/x_1_y.pkl",
        "sem_seg_file_names": [f"{root}/gt_masks/train/x_1_y/x_1_y_{k}.png" for k in range(1, 6)],
        "label_format": "binary",
        "video_id": "x_1_y",
        "height": 16,
        "width": 24,
        "subset": "ms3",
    }
    examples = clip_log_mel(record["audio_file_name"], 5)
    assert examples[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    (record,) = load_avs(avsbench_tree_ms3, "ms3", "val")
    assert record["audio_file_name"] == f"{root}/audio_wav/val/v.wav"


def test_avss(avsbench_tree_avss):
    root = avsbench_tree_avss / "AVSBench_semantic"
    v1s, v2 = load_avs(avsbench_tree_avss, "avss", "train")
    assert v1s == {
        "file_names": [f"{root}/v1s/p_q_0_5000/frames/{i}.jpg" for i in range(5)],
        "audio_file_name": f"{root}/v1s/p_q_0_5000/audio.wav",
        "sem_seg_file_names": [
            f"{root}/v1s/p_q_0_5000/labels_semantic/0.png",
            *[None] * 4,
        ],
        "label_format": "index",
        "video_id": "p_q_0_5000",
        "height": 16,
        "width": 24,
        "subset": "v1s",
    }
    assert v2["subset"] == "v2" and frame_numbers(v2) == list(range(10))
    assert is_annotated(v2) == [True] * 10
    (v1m,) = load_avs(avsbench_tree_avss, "avss", "val")
    assert v1m["subset"] == "v1m" and is_annotated(v1m) == [True] * 5


def test_color_masks_serve_a_clip_that_has_no_index_masks(avsbench_tree_avss):
    (record,) = load_avs(avsbench_tree_avss, "avss", "test")
    expected = [read_label_map(path, "index") for path in record["sem_seg_file_names"]]
    for path in record["sem_seg_file_names"]:
        os.unlink(path)
    (record,) = load_avs(avsbench_tree_avss, "avss", "test")
    assert record["label_format"] == "palette" and is_annotated(record) == [True] * 10
    for path, labels in zip(record["sem_seg_file_names"], expected):
        assert (read_label_map(path, "palette", class_palette(71)) == labels).all()
        assert set(labels.flatten()) == {0, AVSS_CLASSES.index("violin")}
    # The other clips keep their own.
    assert load_avs(avsbench_tree_avss, "avss", "val")[0]["label_format"] == "index"


@pytest.mark.parametrize("num_frames", [1, 3, 12])
def test_clips_may_have_any_number_of_frames(avsbench_tree_avss, num_frames):
    frames = avsbench_tree_avss / "AVSBench_semantic/v1m/s_0_5000/frames"
    for i in range(5, num_frames):
        frames.joinpath(f"{i}.jpg").write_bytes(frames.joinpath("0.jpg").read_bytes())
    for i in range(num_frames, 5):
        frames.joinpath(f"{i}.jpg").unlink()
    (record,) = load_avs(avsbench_tree_avss, "avss", "val")
    assert len(record["file_names"]) == len(record["sem_seg_file_names"]) == num_frames
    assert sum(is_annotated(record)) == min(5, num_frames)


def test_size_is_that_of_the_first_frame(avsbench_tree_ms3):
    path = load_avs(avsbench_tree_ms3, "ms3", "val")[0]["file_names"][0]
    Image.new("RGB", (7, 9)).save(path)
    (record,) = load_avs(avsbench_tree_ms3, "ms3", "val")
    assert (record["height"], record["width"]) == (9, 7)
    with open(path, "w") as file:
        file.write("no picture")
    with pytest.raises(InputError, match="v.mp4_1.png: cannot be decoded"):
        load_avs(avsbench_tree_ms3, "ms3", "val")


def test_wrong_requests_are_answered_in_a_sentence(avsbench_tree_ms3):
    with pytest.raises(InputError, match="no layout 'coco'; choose one of s4, ms3, avss"):
        load_avs(avsbench_tree_ms3, "coco", "train")
    with pytest.raises(InputError, match="no split 'dev'; choose one of train, val, test"):
        load_avs(avsbench_tree_ms3, "ms3", "dev")
    with pytest.raises(InputError, match="holds no folder Single-source"):
        load_avs(avsbench_tree_ms3, "s4", "train")
    (avsbench_tree_ms3 / "Multi-sources/ms3_meta_data.csv").write_text("video_id,split\nv,val")
    with pytest.raises(InputError, match="ms3_meta_data.csv: lists no clip of the split 'train'"):
        load_avs(avsbench_tree_ms3, "ms3", "train")


def test_avsbench_is_registered_on_import():
    for layout, classes, evaluator in [
        ("s4", ["background", "object"], "avs_object"),
        ("ms3", ["background", "object"], "avs_object"),
        ("avss", list(AVSS_CLASSES), "avs_semantic"),
    ]:
        for split in SPLITS:
            name = f"avsbench_{layout}_{split}"
            assert name in DatasetCatalog.list()
            metadata = MetadataCatalog.get(name)
            assert metadata.stuff_classes == classes
            assert metadata.stuff_colors == list(map(tuple, class_palette(len(classes)).tolist()))
            assert metadata.ignore_label == 255 and metadata.evaluator_type == evaluator
            assert metadata.root == os.getenv("DETECTRON2_DATASETS", "datasets")


def test_registration_reads_nothing(tmp_path, register):
    register("later", tmp_path / "later")
    with pytest.raises(InputError, match="later: no such folder"):
        DatasetCatalog.get("later_s4_train")


def test_registered_names_give_the_records(avsbench_tree_s4, avsbench_tree_ms3, register):
    register("small", avsbench_tree_s4)
    for layout in ("s4", "ms3"):
        for split in SPLITS:
            records = DatasetCatalog.get(f"small_{layout}_{split}")
            assert records == load_avs(avsbench_tree_s4, layout, split)


def test_records_are_read_again_only_when_the_list_changed(avsbench_tree_s4, register):
    register("small", avsbench_tree_s4)
    first = DatasetCatalog.get("small_s4_train")
    first[0]["file_names"].clear()
    first.pop()
    expected = load_avs(avsbench_tree_s4, "s4", "train")
    (avsbench_tree_s4 / "Single-source/s4_data").rename(avsbench_tree_s4 / "elsewhere")
    assert DatasetCatalog.get("small_s4_train") == expected

    (avsbench_tree_s4 / "elsewhere").rename(avsbench_tree_s4 / "Single-source/s4_data")
    table = avsbench_tree_s4 / "Single-source/s4_meta_data.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if not line.startswith("b_2")))
    os.utime(table, ns=(0, 1))
    (record,) = DatasetCatalog.get("small_s4_train")
    assert record == expected[0]


def test_classes_come_from_the_tree_when_it_is_loaded(avsbench_tree_avss, register):
    register("small", avsbench_tree_avss)
    classes = ["background", "zebra", "ape"]
    class_list = avsbench_tree_avss / "AVSBench_semantic/label2idx.json"
    class_list.write_text(json.dumps({name: index for index, name in enumerate(classes)}))
    metadata = MetadataCatalog.get("small_avss_val")
    assert metadata.get("stuff_classes") is None
    DatasetCatalog.get("small_avss_val")
    assert metadata.stuff_classes == classes and len(metadata.stuff_colors) == 3
    DatasetCatalog.get("small_avss_val")

    class_list.unlink()
    with pytest.raises(InputError, match="label2idx.json: no such file"):
        DatasetCatalog.get("small_avss_train")


def test_given_classes_need_no_class_list(avsbench_tree_avss, register):
    (avsbench_tree_avss / "AVSBench_semantic/label2idx.json").unlink()
    register("small", avsbench_tree_avss, ["background", "a", "b"])
    assert len(DatasetCatalog.get("small_avss_train")) == 2
    assert MetadataCatalog.get("small_avss_train").stuff_classes == ["background", "a", "b"]


def test_a_prefix_belongs_to_one_root(tmp_path, register):
    register("small", tmp_path)
    register("small", tmp_path)
    with pytest.raises(InputError, match="other: the name small_s4_train is taken by"):
        register("small", tmp_path / "other")
