"""A layout of one's own is one entry: other folders, other splits, masks as COCO's run lengths."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from qdformer.data.datasets.avsbench import LAYOUTS, load_avs, register_avs, register_layout
from qdformer.data.datasets.layout import Layout
from qdformer.data.datasets.validation import check_tree
from qdformer.errors import InputError
from qdformer.io.image import read_label_map

MINE = Layout(
    name="mine",
    folders=("concerts",),
    table="clips.csv",
    header=("clip", "part"),
    columns={"name": "clip", "split": "part"},
    frames="{split}/{name}_{index}.png",
    masks=(("{split}.json", "coco"),),
    sounds=("{split}/{name}.flac",),
    evaluator_type="avs_semantic",
    class_list="training.json",
    splits=("training", "held_out"),
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two clips of two frames; the second frame of each is annotated."""
    monkeypatch.delitem(LAYOUTS, "mine", raising=False)
    folder = tmp_path / "concerts"
    labels = np.zeros((12, 20), np.uint8)
    labels[2:9, 3:11], labels[5:7, 9:15] = 1, 2
    for split in MINE.splits:
        (folder / split).mkdir(parents=True)
        for index in (1, 2):
            Image.new("RGB", (20, 12), (60 * index, 0, 0)).save(folder / split / f"a_{index}.png")
        soundfile.write(folder / split / "a.flac", np.zeros(32000), 16000)
        runs = [coco_mask.encode(np.asfortranarray(labels == label)) for label in (1, 2)]
        (folder / f"{split}.json").write_text(
            json.dumps({
                "images": [{"id": 7, "file_name": f"{split}/a_2.png", "height": 12, "width": 20}],
                "categories": [{"id": 9, "name": "viola"}, {"id": 4, "name": "horn"}],
                "annotations": [
                    {"image_id": 7, "category_id": category,
                     "segmentation": {"size": [12, 20], "counts": run["counts"].decode()}}
                    for category, run in zip((4, 9), runs)
                ],
            })
        )  # fmt: skip
    rows = "".join(f"a,{split}\n" for split in MINE.splits)
    (folder / "clips.csv").write_text("clip,part\n" + rows)
    register_layout(MINE)
    yield tmp_path, labels
    LAYOUTS.pop("mine")
    for name in [name for name in DatasetCatalog.list() if name.startswith("own_tree_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_it_is_registered_and_read_like_avsbench(tree):
    root, labels = tree
    register_avs("own_tree", root)
    (record,) = DatasetCatalog.get("own_tree_mine_held_out")
    assert MetadataCatalog.get("own_tree_mine_held_out").stuff_classes == [
        "background", "horn", "viola"
    ]  # fmt: skip
    assert record["sem_seg_file_names"][0] is None
    mask = record["sem_seg_file_names"][1]
    np.testing.assert_array_equal(read_label_map(mask, record["label_format"]), labels)


def test_it_is_checked(tree):
    root, _ = tree
    report = check_tree(root)
    assert report.clips == {("mine", "training"): 1, ("mine", "held_out"): 1}
    assert report.can_train
    assert {finding.kind for finding in report.findings} == {"unannotated"}
    content = json.loads((root / "concerts/training.json").read_text())
    content["annotations"][0]["segmentation"]["counts"] = "1"
    (root / "concerts/training.json").write_text(json.dumps(content))
    (broken,) = [f for f in check_tree(root).findings if f.kind == "unreadable"]
    assert "training.json (training/a_2.png)" in broken.text


def test_a_split_with_other_categories_is_refused(tree):
    root, _ = tree
    path = root / "concerts/held_out.json"
    content = json.loads(path.read_text())
    for categories in (
        content["categories"][:1],
        [{"id": 9, "name": "horn"}, {"id": 4, "name": "viola"}],
    ):
        path.write_text(json.dumps(content | {"categories": categories, "annotations": []}))
        with pytest.raises(InputError, match="held_out.json: has the categories .* training.json"):
            load_avs(root, "mine", "held_out")
        assert not check_tree(root).can_train


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"frames": "{category}/{name}_{index}.png"}, "has category, which columns"),
        ({"frames": "{split}/{name}.png"}, "must have {index} once"),
        ({"masks": (("{split}_{index}.json", "coco"),)}, "must have {index} nowhere"),
        ({"masks": (("{name}.png", "foo"),)}, "masks are 'foo'; known: binary"),
        ({"columns": {"name": "clip", "split": "parts"}}, "names parts, and header"),
        ({"columns": {"name": "clip"}}, "names no split"),
        ({"splits": ()}, "splits is ()"),
        ({"folders": "concerts"}, "folders is 'concerts'"),
    ],
)
def test_what_a_layout_lacks_is_said(tree, changes, problem):
    with pytest.raises(InputError, match=f"layout 'other': .*{re.escape(problem)}"):
        register_layout(replace(MINE, name="other", **changes))


def test_a_name_is_taken_once(tree):
    with pytest.raises(InputError, match="layout 'mine' already"):
        register_layout(MINE)
