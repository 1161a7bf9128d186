import json
import os
import shutil

import pytest

from qdformer.data.datasets.avsbench import load_avs
from qdformer.data.datasets.classes import read_classes
from qdformer.data.datasets.validation import check_tree
from qdformer.errors import InputError
from qdformer.io.image import read_image
from qdformer.synthetic.assets import AssetFolders, load_libraries
from tests.io.hostile_files import CLASS_LISTS, TABLES, TREES, opened_paths


@pytest.fixture
def outside(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere") / "outside"


@pytest.mark.parametrize("trick", TREES)
def test_no_file_outside_of_the_data_set_is_opened(avsbench_tree_s4, outside, trick):
    TREES[trick](avsbench_tree_s4 / "Single-source", outside)
    with opened_paths() as opened:
        with pytest.raises(InputError) as caught:
            load_avs(avsbench_tree_s4, "s4", "train")
        report = check_tree(avsbench_tree_s4)
    assert "\n" not in str(caught.value)
    assert not report.can_train
    assert not [path for path in opened if path.startswith(str(outside.parent))]


def load_all(root):
    return [
        load_avs(root, layout, split)
        for layout in ("s4", "ms3", "avss")
        for split in ("train", "val", "test")
    ]


def test_the_root_and_the_folder_of_a_layout_may_be_links(
    avsbench_tree_s4, avsbench_tree_ms3, avsbench_tree_avss, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("disk")
    for name in ("Single-source", "AVSBench_semantic"):
        shutil.move(avsbench_tree_s4 / name, elsewhere / name)
        (avsbench_tree_s4 / name).symlink_to(elsewhere / name)
    link = elsewhere / "root"
    link.symlink_to(avsbench_tree_s4)
    for records in load_all(link):
        for record in records:
            assert read_image(record["file_names"][0]).shape == (16, 24, 3)
            assert os.path.isfile(record["audio_file_name"])


def test_links_to_another_disk_are_followed(avsbench_tree_s4, tmp_path_factory):
    base, disk = avsbench_tree_s4 / "Single-source", tmp_path_factory.mktemp("disk")
    expected = load_avs(avsbench_tree_s4, "s4", "train")
    for name in ("visual_frames", "gt_masks"):
        shutil.move(base / "s4_data" / name, disk / name)
        (base / "s4_data" / name).symlink_to(disk / name)
    frame = base / "s4_data/visual_frames/train/dog_barking/-a_1/-a_1_1.png"
    frame.rename(disk / "frame.png")
    frame.symlink_to(disk / "frame.png")
    assert load_avs(avsbench_tree_s4, "s4", "train") == expected
    assert check_tree(avsbench_tree_s4).can_train


def test_a_pipe_as_list_is_not_waited_for(avsbench_tree_s4, tmp_path):
    table = avsbench_tree_s4 / "Single-source/s4_meta_data.csv"
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(InputError, match="s4_meta_data.csv: the list of clips is missing"):
        load_avs(avsbench_tree_s4, "s4", "train")
    os.mkfifo(tmp_path / "label2idx.json")
    with pytest.raises(InputError, match="label2idx.json: no such file"):
        read_classes(tmp_path / "label2idx.json")


def test_a_frame_with_an_enormous_number(avsbench_tree_s4):
    folder = avsbench_tree_s4 / "Single-source/s4_data/visual_frames/train/dog_barking/-a_1"
    (folder / f"-a_1_{10**200}.png").write_bytes((folder / "-a_1_1.png").read_bytes())
    with pytest.raises(InputError, match="frame 6 of this clip is missing"):
        load_avs(avsbench_tree_s4, "s4", "train")


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_tables_that_are_none(avsbench_tree_s4, content):
    (avsbench_tree_s4 / "Single-source/s4_meta_data.csv").write_bytes(content)
    with pytest.raises(InputError, match="s4_meta_data.csv") as caught:
        load_avs(avsbench_tree_s4, "s4", "train")
    text = str(caught.value)
    assert text.isprintable() and len(text) < 600
    assert not check_tree(avsbench_tree_s4).can_train


@pytest.mark.parametrize("content", CLASS_LISTS.values(), ids=CLASS_LISTS)
def test_class_lists_that_are_none(tmp_path, content):
    path = tmp_path / "label2idx.json"
    path.write_text(content)
    with pytest.raises(InputError, match="label2idx.json") as caught:
        read_classes(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_sound_class_list_is_read(tmp_path):
    path = tmp_path / "label2idx.json"
    path.write_text(json.dumps({"background": 0, "ape": "1"}))
    assert read_classes(path) == ("background", "ape")


def test_an_asset_folder_may_be_a_link(tmp_path):
    for name in ("cutouts/a/1.png", "sounds/a/1-1-A.wav"):
        (tmp_path / "stored" / name).parent.mkdir(parents=True)
        (tmp_path / "stored" / name).touch()
        (tmp_path / name.split("/")[0]).symlink_to(tmp_path / "stored" / name.split("/")[0])
    folders = AssetFolders(tmp_path / "cutouts", tmp_path / "sounds")
    assert len(load_libraries(folders, (), ("train",))["train"].files()) == 2
