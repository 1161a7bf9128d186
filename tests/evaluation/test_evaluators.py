"""The evaluators: published values through files, invariances, several processes, bad input."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import qdformer  # noqa: F401

# isort: split
# Detectron2 0.6 can be imported from here on, also where this file runs as a script.
from detectron2.data import MetadataCatalog
from detectron2.evaluation import print_csv_format
from PIL import Image

from qdformer.errors import InputError
from qdformer.evaluation import metrics
from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator

NAMES = ["background", "cat", "dog", "emergency-car", "violin"]
COLORS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
EVALUATORS = {"object": AVSObjectEvaluator, "semantic": AVSSemanticEvaluator}


def evaluator_of(kind, output_dir=None):
    name = f"evaluator_test_{kind}"
    MetadataCatalog.get(name).set(stuff_classes=NAMES, stuff_colors=COLORS, ignore_label=255)
    return EVALUATORS[kind](name, output_dir)


def make_clip(folder, video_id, gt, pred, prob=None, annotated=None):
    """A mapper's clip and a model's output of (T, H, W) maps; masks are written as index png."""
    annotated = range(len(gt)) if annotated is None else annotated
    paths = []
    for t, labels in enumerate(gt):
        paths.append(str(folder / f"{video_id}_{t}.png") if t in annotated else None)
        if paths[-1]:
            Image.fromarray(labels.astype(np.uint8)).save(paths[-1])
    prob = np.where(pred > 0, 0.9, 0.1) if prob is None else prob
    clip = {"video_id": video_id, "sem_seg_file_names": paths, "label_format": "index"}
    output = {
        "sem_seg": torch.from_numpy(pred.astype(np.uint8)),
        "foreground": torch.from_numpy(prob.astype(np.float32)),
    }
    return clip, output


def random_clips(folder, seed=0):
    """Clips of 1 to 3 frames and two sizes, partly annotated, some frames without any object."""
    random = np.random.default_rng(seed)
    clips = []
    for i in range(40):
        shape = (1 + i % 3, 18 + i % 2, 25)
        gt = random.choice(5, shape, p=[0.6, 0.1, 0.1, 0.1, 0.1])
        gt[:, :4] = 255
        gt[i % 2 :: 3] = 0
        pred = np.where(random.random(shape) < 0.6, gt, random.integers(0, 5, shape)) % 5
        prob = np.clip(0.5 * random.random(shape) + 0.5 * (pred > 0), 0, 1)
        clips.append(make_clip(folder, f"clip{i}", gt, pred, prob, annotated=range(1 + i % 2)))
    return clips


def run(evaluator, clips, batch=1):
    evaluator.reset()
    for start in range(0, len(clips), batch):
        inputs, outputs = zip(*clips[start : start + batch], strict=True)
        evaluator.process(list(inputs), list(outputs))
    (result,) = evaluator.evaluate().values()
    return result


# Values


@pytest.mark.parametrize("cuts", [[], [2], [1, 3]])
def test_object_values_do_not_depend_on_the_cut_into_clips(tmp_path, binary_frames, cuts):
    prob, gt = binary_frames
    parts = zip(np.split(3 * gt, cuts), np.split(prob, cuts), strict=True)
    clips = [make_clip(tmp_path, f"v{i}", g, 2 * (p > 0.5), p) for i, (g, p) in enumerate(parts)]
    result = run(evaluator_of("object"), clips)
    assert result["AVSBench_mIoU"] == pytest.approx(61.8537, abs=1e-4)
    assert result["AVSBench_MaxF"] == pytest.approx(43.4049, abs=1e-4)
    assert result["AVSBench_F50"] == pytest.approx(81.9803 / 2, abs=1e-4)
    assert result["frames"] == 4


def test_davis_means_are_over_clips_of_means_over_frames(tmp_path):
    square = np.zeros((3, 48, 64), int)
    square[:, 10:30, 12:40] = 1
    moved = np.zeros((1, 48, 64), int)
    moved[:, 11:31, 14:42] = 1
    clips = [
        make_clip(tmp_path, "three", square, np.stack([square[0], square[0], 0 * square[0]])),
        make_clip(tmp_path, "one", square[:1], moved),
    ]
    result = run(evaluator_of("object"), clips)
    j, f = (2 / 3 + 0.789137) / 2, (2 / 3 + 0.59375) / 2
    assert result["J"] == pytest.approx(100 * j, abs=1e-4)
    assert result["F"] == pytest.approx(100 * f, abs=1e-4)
    assert result["J&F"] == pytest.approx(50 * (j + f), abs=1e-4)
    assert result["J_recall"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    # The quarters of three frames are (0, 1) and (2,): they drop from 1 to 0.
    assert result["J_decay"] == result["F_decay"] == pytest.approx(50)


@pytest.mark.parametrize("cuts", [[], [2], [1, 3]])
def test_semantic_values(tmp_path, label_maps, cuts):
    parts = zip(*(np.split(maps, cuts) for maps in label_maps), strict=True)
    clips = [make_clip(tmp_path, f"v{i}", gt, pred) for i, (pred, gt) in enumerate(parts)]
    expected = {
        "mIoU": 48.8764,
        "foreground_mIoU": (45.8228 + 47.5949 + 49.1639 + 35.5932) / 4,
        "mIoU_absent_zero": 48.8764,
        "pixel_accuracy": 70.6706,
        "AVSBench_mIoU": 48.2074,
        "AVSBench_F": 63.5461,
        "foreground_share": 100 * np.mean(label_maps[0] > 0),
        "IoU_background": 66.2071,
        "IoU_cat": 45.8228,
        "IoU_dog": 47.5949,
        "IoU_emergency-car": 49.1639,
        "IoU_violin": 35.5932,
        "frames": 4,
    }
    assert run(evaluator_of("semantic"), clips) == pytest.approx(expected, abs=1e-4)


def test_class_predicted_without_ground_truth(tmp_path, label_maps):
    pred, gt = label_maps
    gt[gt == 4] = 0
    evaluator = evaluator_of("semantic", tmp_path / "new" / "folder")
    result = run(evaluator, [make_clip(tmp_path, "v", gt, pred)])
    assert result["mIoU"] == pytest.approx(51.9331, abs=1e-4)
    assert result["mIoU_absent_zero"] == pytest.approx(41.5465, abs=1e-4)
    assert result["AVSBench_mIoU"] == pytest.approx(41.5008, abs=1e-4)
    assert "IoU_dog" in result and "IoU_violin" not in result
    written = tmp_path / "new" / "folder" / "evaluator_test_semantic_avs_semantic.json"
    report = json.loads(written.read_text())
    assert report["iou_per_class"]["violin"] is None
    assert report["iou_per_class"]["dog"] == result["IoU_dog"]
    assert report["confusion"] == metrics.confusion_matrix(pred, gt, 5).tolist()
    assert report["metrics"] == result and report["clips"] == 1


def test_frames_without_annotation_and_ignored_pixels_do_not_count(tmp_path, label_maps):
    pred, gt = label_maps
    for kind in EVALUATORS:
        reference = run(evaluator_of(kind), [make_clip(tmp_path, "a", gt[:1], pred[:1])])
        full = make_clip(tmp_path, "b", gt, pred, annotated=[0])
        assert run(evaluator_of(kind), [full]) == reference
        assert reference["frames"] == 1

    gt[:, :, :20] = 255
    other = np.where(gt == 255, 4 - pred, pred)
    for kind in EVALUATORS:
        clips = [make_clip(tmp_path, "c", gt, maps) for maps in (pred, other)]
        assert run(evaluator_of(kind), clips[:1]) == run(evaluator_of(kind), clips[1:])


def test_colors_are_looked_up_in_the_palette_of_the_data_set(tmp_path, label_maps):
    pred, gt = label_maps
    clip, output = make_clip(tmp_path, "v", gt, pred)
    expected = run(evaluator_of("semantic"), [(clip, output)])
    for path, labels in zip(clip["sem_seg_file_names"], gt, strict=True):
        Image.fromarray(np.array(COLORS, np.uint8)[labels]).save(path)
    assert (
        run(evaluator_of("semantic"), [({**clip, "label_format": "palette"}, output)]) == expected
    )


def test_nothing_sounds_and_nothing_is_predicted(tmp_path):
    silent = np.zeros((2, 9, 9), int)
    clips = [make_clip(tmp_path, "v", silent, silent)]
    result = run(evaluator_of("object"), clips)
    assert result["J&F"] == 100 and result["AVSBench_mIoU"] == 100
    assert result["AVSBench_MaxF"] == 0 and result["AVSBench_F50"] == 0
    result = run(evaluator_of("semantic", tmp_path), clips)
    assert result["mIoU"] == 100 and math.isnan(result["foreground_mIoU"])
    report = json.loads((tmp_path / "evaluator_test_semantic_avs_semantic.json").read_text())
    assert report["metrics"]["foreground_mIoU"] is None


# Invariances


@pytest.mark.parametrize("kind", EVALUATORS)
def test_batch_size_order_and_repetition_change_nothing(tmp_path, kind):
    clips = random_clips(tmp_path)
    reference = run(evaluator_of(kind), clips)
    assert run(evaluator_of(kind), clips, batch=4) == reference
    assert run(evaluator_of(kind), clips[::-1], batch=3) == reference
    assert run(evaluator_of(kind), clips + clips[:2]) == reference
    assert all(isinstance(value, float) for value in reference.values())


@pytest.mark.parametrize("kind", EVALUATORS)
def test_reset_forgets(tmp_path, kind):
    clips = random_clips(tmp_path)
    run(evaluator := evaluator_of(kind), clips[:3])
    assert run(evaluator, clips[3:]) == run(evaluator_of(kind), clips[3:])


def test_two_processes_give_the_numbers_of_one(tmp_path):
    """Each process scores half of the clips and one that the other has too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(tmp_path), str(rank)], env=environment)
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    results = [json.loads((tmp_path / f"result{rank}.json").read_text()) for rank in range(2)]
    clips = random_clips(tmp_path)
    for kind in EVALUATORS:
        assert results[0][kind] == run(evaluator_of(kind), clips)
        assert results[1][kind] is None


def evaluate_as_one_of_two_processes(folder, rank):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=rank
    )
    (folder / f"masks{rank}").mkdir()
    clips = random_clips(folder / f"masks{rank}")
    results = {}
    for kind in EVALUATORS:
        evaluator = evaluator_of(kind)
        for clip, output in [*clips[rank::2], clips[rank - 1]]:
            evaluator.process([clip], [output])
        result = evaluator.evaluate()
        results[kind] = result and result[evaluator.task]
    (folder / f"result{rank}.json").write_text(json.dumps(results))
    os._exit(0)  # Gloo's threads abort one orderly exit in forty.


# Reports


def test_detectron2_prints_the_metrics(tmp_path, caplog):
    evaluator = evaluator_of("object", tmp_path)
    with caplog.at_level(logging.INFO):
        evaluator.process(*([item] for item in random_clips(tmp_path)[2]))
        results = evaluator.evaluate()
        print_csv_format(results)
    names = "J&F,J,F,J_recall,F_recall,J_decay,F_decay,AVSBench_mIoU,AVSBench_MaxF,AVSBench_F50,"
    names += "foreground_share"
    assert f"copypaste: {names},frames" in caplog.messages
    assert any("1 clips, 1 annotated frames. J and F are DAVIS's" in m for m in caplog.messages)
    report = json.loads((tmp_path / "evaluator_test_object_avs_object.json").read_text())
    assert report["per_clip"]["clip2"]["J"] == results["avs_object"]["J"]


# Bad input


@pytest.mark.parametrize("kind", EVALUATORS)
def test_no_annotated_frame_is_an_error(tmp_path, kind):
    maps = np.zeros((2, 6, 6), int)
    message = f"evaluator_test_{kind}: none of the evaluated clips has an annotated frame"
    with pytest.raises(InputError, match=message):
        evaluator_of(kind).evaluate()
    with pytest.raises(InputError, match=message):
        run(evaluator_of(kind), [make_clip(tmp_path, "v", maps, maps, annotated=[])])


@pytest.mark.parametrize("kind", EVALUATORS)
def test_prediction_of_another_size_names_the_mask(tmp_path, kind):
    clip, output = make_clip(tmp_path, "v", np.zeros((1, 6, 9), int), np.zeros((1, 6, 8), int))
    with pytest.raises(InputError, match=r"v_0\.png: the mask is 9x6 pixels .* frame 8x6"):
        evaluator_of(kind).process([clip], [output])


def test_label_that_the_data_set_lacks_names_the_mask(tmp_path):
    good, bad = np.zeros((1, 6, 9), int), np.full((1, 6, 9), 7)
    clip, output = make_clip(tmp_path, "v", bad, good)
    message = r"v_0\.png: the ground truth holds labels from 7 to 7, allowed are 0 to 4, and 255"
    with pytest.raises(InputError, match=message):
        evaluator_of("semantic").process([clip], [output])
    clip, output = make_clip(tmp_path, "v", good, bad)
    with pytest.raises(InputError, match=r"v_0\.png: the prediction holds labels from 7"):
        evaluator_of("semantic").process([clip], [output])


def test_only_ignored_pixels_is_an_error(tmp_path):
    maps = np.full((1, 6, 6), 255)
    with pytest.raises(InputError, match="every pixel of the ground truth is marked as ignored"):
        run(evaluator_of("semantic"), [make_clip(tmp_path, "v", maps, 0 * maps)])


if __name__ == "__main__":
    evaluate_as_one_of_two_processes(Path(sys.argv[1]), int(sys.argv[2]))
