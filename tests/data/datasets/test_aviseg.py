"""AVISeg's published structure: a YouTube-VIS file a split, frames and one sound a video."""

import json

import numpy as np
import pytest
import soundfile
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from qdformer.data.dataset_mapper import AVSDatasetMapper
from qdformer.data.datasets.avsbench import register_avs
from qdformer.data.datasets.validation import check_tree
from qdformer.errors import InputError
from qdformer.io.image import read_label_map
from tests.engine.training import config, train

SIZE = (12, 20)


@pytest.fixture
def tree(tmp_path):
    """A video of three frames for each split; two dogs, of which one is silent in frame 1."""
    folder = tmp_path / "AVISeg"
    box = [[2.0, 1.0, 8.0, 1.0, 8.0, 6.0, 2.0, 6.0]]
    other = [[10.0, 1.0, 14.0, 1.0, 14.0, 6.0, 10.0, 6.0]]
    for split in ("train", "val", "test"):
        names = [f"vid_{split}/frame_{n:04d}.jpg" for n in range(1, 4)]
        for name in names:
            path = folder / split / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1]).save(path)
        (folder / split / "WAVAudios").mkdir()
        sound = np.zeros((3 * 44100, 2))
        soundfile.write(folder / split / "WAVAudios" / f"vid_{split}.wav", sound, 44100)
        video = {"id": 1, "file_names": names, "height": SIZE[0], "width": SIZE[1], "length": 3}
        tracks = [
            {"id": 1, "video_id": 1, "category_id": 14, "iscrowd": 0,
             "segmentations": [box, box, None]},
            {"id": 2, "video_id": 1, "category_id": 14, "iscrowd": 0,
             "segmentations": [other, None, None]},
        ]  # fmt: skip
        content = {
            "videos": [video],
            "annotations": tracks,
            "categories": [{"id": 1, "name": "person"}, {"id": 14, "name": "dog"}],
        }
        (folder / f"{split}.json").write_text(json.dumps(content))
    yield tmp_path
    for name in [name for name in DatasetCatalog.list() if name.startswith("avis_tree_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_videos_are_clips_with_the_classes_of_the_file(tree):
    register_avs("avis_tree", tree)
    (record,) = DatasetCatalog.get("avis_tree_aviseg_val")
    metadata = MetadataCatalog.get("avis_tree_aviseg_val")
    assert metadata.stuff_classes == ["background", "person", "dog"]
    assert len(record["file_names"]) == 3 and record["audio_file_name"].endswith("vid_val.wav")
    labels = [read_label_map(mask, record["label_format"]) for mask in record["sem_seg_file_names"]]
    expected = np.zeros((3, *SIZE), np.uint8)
    expected[:2, 1:6, 2:8] = expected[0, 1:6, 10:14] = 2
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_it_is_checked(tree, number):
    assert check_tree(tree).can_train
    (tree / f"AVISeg/val/JPEGImages/vid_val/frame_000{number}.jpg").unlink()
    report = check_tree(tree)
    assert [finding.kind for finding in report.findings] == ["missing"]


def test_names_do_not_lead_out(tree):
    path = tree / "AVISeg" / "train.json"
    path.write_text(path.read_text().replace("vid_train/", "../train/"))
    with pytest.raises(InputError, match="plain file name"):
        DatasetCatalog.get(_register(tree))


def _register(tree):
    register_avs("avis_tree", tree)
    return "avis_tree_aviseg_train"


def test_tracks_of_one_class_are_objects_of_their_own(tree):
    register_avs("avis_tree", tree)
    (record,) = DatasetCatalog.get("avis_tree_aviseg_train")
    mapper = AVSDatasetMapper(
        is_train=True, augmentations=[], image_format="RGB", palette=None, num_classes=2,
        num_frames=5, audio_hop=1.0,
    )  # fmt: skip
    mapped = mapper(record)
    assert [frame.gt_classes.tolist() for frame in mapped["instances"]] == [[1, 1]] * 3
    areas = [frame.gt_masks.tensor.sum((1, 2)).tolist() for frame in mapped["instances"]]
    assert areas == [[30, 20], [30, 0], [0, 0]]
    mapper.num_classes = 1
    with pytest.raises(InputError, match="label 2, but the data set has classes 0 to 1"):
        mapper(record)


def test_a_run_on_it_reports_tracks(tree, tmp_path):
    register_avs("avis_tree", tree)
    names = {split: f"avis_tree_aviseg_{split}" for split in ("train", "test")}
    cfg = config(
        tmp_path / "run", "tiny",
        "DATASETS.TRAIN", (names["train"],), "DATASETS.TEST", (names["test"],),
        "SOLVER.MAX_ITER", 1, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.IMS_PER_BATCH", 1,
        "MODEL.QDFORMER.CLASS_THRESHOLD", 0.001, "TEST.NUM_SHEETS", 0,
    )  # fmt: skip
    results = train(cfg)._last_eval_results
    assert {"AP", "AP50", "AP75", "AR"} == results["tracks"].keys() and "avs_semantic" in results
    assert (tmp_path / "run/inference" / names["test"] / f"{names['test']}_tracks.json").is_file()
