"""Masks that are written are scored like the model that they are of."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from qdformer.commands import score_predictions as command
from qdformer.errors import InputError
from qdformer.evaluation.registry import find_evaluator
from qdformer.evaluation.saved_predictions import PredictionWriter, score_predictions
from qdformer.io.image import read_size

SETS = ("tiny_avss_test", "tiny_ms3_test", "tiny_s4_test")


@pytest.fixture(params=SETS)
def outputs(request, composed):
    """A data set and what somebody who guesses says of its clips."""
    rng = np.random.default_rng(0)
    records = DatasetCatalog.get(request.param)
    classes = len(MetadataCatalog.get(request.param).stuff_classes)
    said = []
    for record in records:
        size = (len(record["file_names"]), *read_size(record["file_names"][0]))
        labels = torch.from_numpy(rng.integers(0, classes, size, dtype=np.uint8))
        said.append({"sem_seg": labels, "foreground": (labels > 0).float()})
    return request.param, records, said


def evaluated(name, records, said):
    evaluator = find_evaluator(name)(name)
    evaluator.process(records, said)
    return evaluator.evaluate()


def assert_same(found, expected):
    for task, metrics in expected.items():
        assert found[task] == pytest.approx(metrics, nan_ok=True)


def write(name, records, said, folder):
    PredictionWriter(name, folder).process(records, said)
    return folder


def test_a_round_trip_changes_no_score(outputs, tmp_path):
    folder = write(*outputs, tmp_path)
    assert_same(score_predictions(outputs[0], folder), evaluated(*outputs))


def test_folders_may_have_the_clips_name_alone(outputs, tmp_path):
    name, records, _ = outputs
    written = write(*outputs, tmp_path / "written")
    for record in records:
        last = record["video_id"].rpartition("/")[2]
        shutil.move(written / record["video_id"], tmp_path / "flat" / last)
    assert_same(score_predictions(name, tmp_path / "flat"), evaluated(*outputs))


def test_frames_are_in_the_order_of_their_numbers(composed, tmp_path):
    """Also where 10 would come before 2 as text."""
    name = SETS[1]
    records = DatasetCatalog.get(name)
    numbers = (9, 10, 11)
    for record in records:
        folder = tmp_path / record["video_id"]
        folder.mkdir(parents=True)
        for number, truth in zip(numbers, record["sem_seg_file_names"]):
            shutil.copy(truth, folder / f"frame{number}.png")
    assert score_predictions(name, tmp_path)["avs_object"]["J"] == pytest.approx(100)


def test_the_data_sets_colors_are_read(composed, tmp_path):
    name = SETS[0]
    colors = np.asarray(MetadataCatalog.get(name).stuff_colors, np.uint8)
    for record in DatasetCatalog.get(name):
        folder = tmp_path / record["video_id"]
        folder.mkdir(parents=True)
        for t, truth in enumerate(record["sem_seg_file_names"]):
            labels = np.asarray(Image.open(truth))
            Image.fromarray(colors[labels]).save(folder / f"{t}.png")
    assert score_predictions(name, tmp_path)["avs_semantic"]["mIoU"] == pytest.approx(100)


def test_gray_is_how_sure_a_pixel_is(composed, tmp_path):
    """A threshold of the sweep separates 200 from 150, of which both are foreground at 0.5."""
    name = SETS[1]
    for record in DatasetCatalog.get(name):
        folder = tmp_path / record["video_id"]
        folder.mkdir(parents=True)
        for t, truth in enumerate(record["sem_seg_file_names"]):
            sure = cv2.imread(truth, cv2.IMREAD_GRAYSCALE) > 127
            cv2.imwrite(str(folder / f"{t}.png"), np.where(sure, 200, 150).astype(np.uint8))
    scores = score_predictions(name, tmp_path)["avs_object"]
    assert scores["AVSBench_MaxF"] == pytest.approx(100) and scores["AVSBench_F50"] < 60


def test_other_sizes_are_resized_and_told(outputs, tmp_path, caplog):
    name, records, said = outputs
    double = [{k: v.repeat_interleave(2, 1).repeat_interleave(2, 2) for k, v in s.items()}
              for s in said]  # fmt: skip
    folder = write(name, records, double, tmp_path)
    assert_same(score_predictions(name, folder), evaluated(*outputs))
    frames = sum(len(record["file_names"]) for record in records)
    assert f"{frames} frames have another size" in caplog.text


def test_what_is_missing_is_named(outputs, tmp_path):
    name, records, _ = outputs
    folder = write(*outputs, tmp_path)
    clip = folder / records[1]["video_id"]
    sorted(clip.glob("*.png"))[0].unlink()
    with pytest.raises(InputError, match=records[1]["video_id"]):
        score_predictions(name, folder)
    shutil.rmtree(clip)
    with pytest.raises(InputError, match=f"no folder {records[1]['video_id']}"):
        score_predictions(name, folder)


def test_unknown_labels_are_named(composed, tmp_path):
    name = SETS[0]
    records = DatasetCatalog.get(name)
    said = [
        {"sem_seg": torch.full((len(r["file_names"]), *read_size(r["file_names"][0])), 9)}
        for r in records
    ]
    with pytest.raises(InputError, match="label 9"):
        score_predictions(name, write(name, records, said, tmp_path))


def test_the_command_prints_the_scores(outputs, tmp_path, capsys):
    name = outputs[0]
    command.main(["--data", name, "--predictions", str(write(*outputs, tmp_path))])
    (metrics,) = evaluated(*outputs).values()
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert {key: float(value) for key, value in shown.items()} == pytest.approx(
        metrics, abs=0.006, nan_ok=True
    )
