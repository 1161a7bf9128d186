"""Results to the last bit: against fractions, and for any order, batches, processes and cut."""

import json
import math
import pickle
from fractions import Fraction
from statistics import mean
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qdformer.evaluation import metrics
from qdformer.evaluation.avs_object_evaluation import AVSObjectEvaluator
from qdformer.evaluation.avs_semantic_evaluation import AVSSemanticEvaluator
from qdformer.evaluation.confusion import class_counts

CLASSES, IGNORED = 4, 255
EVALUATORS = {"object": AVSObjectEvaluator, "semantic": AVSSemanticEvaluator}
BETA2 = Fraction(3, 10)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """(input, output) of 13 clips of 1 to 5 frames; the third class is never true."""
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    made = []
    for index in range(13):
        shape = (1 + index % 5, 13, 17)
        gt = rng.choice([0, 1, 3, IGNORED], shape, p=[0.6, 0.2, 0.1, 0.1])
        gt[index % 3 :: 4] = 0  # nothing sounds
        gt[index % 7 :: 6] = IGNORED
        pred = np.where((rng.random(shape) < 0.5) & (gt < CLASSES), gt, rng.integers(0, 4, shape))
        foreground = 0.5 * rng.random(shape) + 0.5 * (pred > 0)
        annotated = set(range(0, shape[0], 1 + index % 2)) if index != 4 else set()
        made.append(make(folder, f"clip{index}", gt, pred, foreground, annotated))
    return made


def make(folder, video_id, gt, pred, foreground, annotated):
    names = [
        str(folder / f"{video_id}_{t}.png") if t in annotated else None for t in range(len(gt))
    ]
    for name, labels in zip(names, gt):
        if name:
            Image.fromarray(labels.astype(np.uint8)).save(name)
    clip = {"video_id": video_id, "sem_seg_file_names": names, "label_format": "index", "gt": gt}
    output = {
        "sem_seg": torch.from_numpy(pred.astype(np.uint8)),
        "foreground": torch.from_numpy(foreground.astype(np.float32)),
    }
    return clip, output


def evaluator_of(kind, output_dir=None):
    name = f"exactness_{kind}"
    MetadataCatalog.get(name).set(stuff_classes=[*"0123"], ignore_label=IGNORED)
    return EVALUATORS[kind](name, output_dir)


def run(kind, parts, batch=1, output_dir=None):
    """The result of processes that score one list of clips each."""
    gathered = []
    for part in parts:
        evaluator = evaluator_of(kind, output_dir)
        for start in range(0, len(part), batch):
            inputs, outputs = zip(*part[start : start + batch])
            evaluator.process(inputs, outputs)
        gathered.append(pickle.loads(pickle.dumps(evaluator._clips)))
    with mock.patch("detectron2.utils.comm.gather", return_value=gathered):
        (result,) = evaluator.evaluate().values()
    return result


def same(first, second):
    """Equal to the last bit, NaN being equal to itself."""
    return {k: v.hex() for k, v in first.items()} == {k: v.hex() for k, v in second.items()}


# Invariance


@pytest.mark.parametrize("kind", EVALUATORS)
@settings(deadline=None, derandomize=True, max_examples=20)
@given(data=st.data())
def test_order_batches_processes_and_repetition_change_no_bit(clips, kind, data):
    order = data.draw(st.permutations(clips))
    order += data.draw(st.lists(st.sampled_from(clips), max_size=3))  # as a sampler that pads does
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    parts = [order[i:j] for i, j in zip([0, *cuts], [*cuts, len(order)])]
    assert same(run(kind, parts, batch=data.draw(st.integers(1, 5))), run(kind, [clips]))


@pytest.mark.parametrize("processes", [1, 2, 3, 20])
def test_detectron2_s_sampler_hands_out_each_clip_once(clips, processes):
    """So that nothing is repeated, and processes without any clip are no trouble."""
    shares = [
        InferenceSampler._get_local_indices(len(clips), processes, rank)
        for rank in range(processes)
    ]
    assert sorted(index for share in shares for index in share) == list(range(len(clips)))
    for kind in EVALUATORS:
        result = run(kind, [[clips[index] for index in share] for share in shares])
        assert same(result, run(kind, [clips]))
        assert all(math.isfinite(value) for value in result.values())


@pytest.mark.parametrize("kind", EVALUATORS)
def test_the_file_is_the_same_too(clips, tmp_path, kind):
    for folder, parts in (("one", [clips]), ("two", [clips[::-2], clips[-2::-2]])):
        run(kind, parts, output_dir=str(tmp_path / folder))
    first, second = (next((tmp_path / name).iterdir()).read_bytes() for name in ("one", "two"))
    assert first == second
    json.loads(first, parse_constant=pytest.fail)  # no NaN and no Infinity


@pytest.mark.parametrize("kind", EVALUATORS)
def test_means_over_frames_do_not_depend_on_the_cut_into_clips(clips, tmp_path, kind):
    frames = [
        make(
            tmp_path,
            f"{clip['video_id']}_{t}",
            clip["gt"][t : t + 1],
            output["sem_seg"][t : t + 1].numpy(),
            output["foreground"][t : t + 1].numpy(),
            {0},
        )
        for clip, output in clips
        for t, name in enumerate(clip["sem_seg_file_names"])
        if name
    ]
    whole, cut = run(kind, [clips]), run(kind, [frames])
    kept = [name for name in whole if kind == "semantic" or name.startswith("AVSBench")]
    assert same(*({name: result[name] for name in kept} for result in (whole, cut)))


# Fractions


def annotated_frames(clips):
    """Per clip (gt, pred, foreground) of its annotated frames."""
    return [
        [
            (gt, pred.numpy(), foreground.numpy())
            for name, gt, pred, foreground in zip(
                clip["sem_seg_file_names"], clip["gt"], output["sem_seg"], output["foreground"]
            )
            if name
        ]
        for clip, output in clips
        if any(clip["sem_seg_file_names"])
    ]


def region_f(pred, gt):
    hits, true, predicted = (int(mask.sum()) for mask in (pred & gt, gt, pred))
    return (1 + BETA2) * hits / (BETA2 * true + predicted)


def test_object_metrics_are_fractions_rounded_at_the_end(clips):
    region, region_recall, frame_iou, fscores = [], [], [], []
    curves = [[] for _ in range(255)]
    thresholds = np.linspace(0, 1, 255, dtype=np.float32)
    for frames in annotated_frames(clips):
        j = []
        for gt, pred, prob in frames:
            counted = gt != IGNORED
            gt, pred, prob = (gt > 0) & counted, (pred > 0) & counted, prob * counted
            hits, union = int((pred & gt).sum()), int((pred | gt).sum())
            j.append(Fraction(hits, union) if union else Fraction(1))
            if gt.any():
                frame_iou.append(Fraction(hits) / (union + Fraction(1e-7)))
                fscores.append(region_f(pred, gt))
                for curve, threshold in zip(curves, thresholds):
                    curve.append(region_f(prob >= threshold, gt))
            else:
                frame_iou.append(Fraction(gt.size - union, gt.size))
        region.append(mean(j))
        region_recall.append(Fraction(sum(score > Fraction(1, 2) for score in j), len(j)))
    expected = {
        "J": mean(region),
        "J_recall": mean(region_recall),
        "AVSBench_mIoU": mean(frame_iou),
        "AVSBench_F50": mean(fscores),
        "AVSBench_MaxF": max(map(mean, curves)),
    }
    result = run("object", [clips])
    for name, value in expected.items():
        assert result[name] == pytest.approx(float(100 * value), rel=1e-15, abs=0), name


def test_semantic_metrics_are_fractions_rounded_at_the_end(clips):
    ious, fscores = [[] for _ in range(CLASSES)], [[] for _ in range(CLASSES)]
    total = np.zeros((3, CLASSES), int)  # right, true and predicted
    for gt, pred, _ in sum(annotated_frames(clips), []):
        counted = gt != IGNORED
        for c in range(CLASSES):
            pair = (pred == c) & counted, (gt == c) & counted
            total[:, c] += (pair[0] & pair[1]).sum(), pair[1].sum(), pair[0].sum()
            if union := int((pair[0] | pair[1]).sum()):
                ious[c].append(Fraction(int((pair[0] & pair[1]).sum()), union))
                fscores[c].append(region_f(*pair))
    hits, true, predicted = total.tolist()
    iou = [Fraction(h, max(t + p - h, 1)) for h, t, p in zip(hits, true, predicted)]
    expected = {
        "mIoU": mean(iou[c] for c in range(CLASSES) if true[c]),
        "foreground_mIoU": mean(iou[c] for c in range(1, CLASSES) if true[c]),
        "mIoU_absent_zero": mean(iou),
        "pixel_accuracy": Fraction(sum(hits), sum(true)),
        "AVSBench_mIoU": mean(mean(scores or [Fraction()]) for scores in ious),
        "AVSBench_F": mean(mean(scores or [Fraction()]) for scores in fscores),
        "foreground_share": Fraction(sum(predicted[1:]), sum(true)),
    }
    assert true[2] == 0 < predicted[2]
    result = run("semantic", [clips])
    for name, value in expected.items():
        assert result[name] == pytest.approx(float(100 * value), rel=1e-15, abs=0), name


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.3, 0.9]), st.sampled_from([0.008, 1, 2, 5]))
def test_boundary_f_is_one_quotient_of_integers(seed, density, tolerance):
    """Rounded once, and so the same for both orders of the masks."""
    pred, gt = np.random.default_rng(seed).random((2, 12, 19)) < density
    score = metrics.boundary_f(pred, gt, tolerance)
    assert metrics.boundary_f(gt, pred, tolerance) == score
    # Denominators are sums of products of two boundary lengths of at most 228 pixels.
    nearest = Fraction(score).limit_denominator(2 * 228**2)
    assert float(nearest) == score


def test_sums_are_rounded_once():
    """Where a running sum of these would lose the small ones, in one order more than in another."""
    values = [0.1] * 10 + [1e-17] * 1000 + [1.0]
    exact = sum(map(Fraction, values)) / len(values)
    for order in (values, values[::-1], sorted(values)):
        assert metrics.davis_statistics(order)[0] == float(exact)


# Counts


def test_counts_of_long_and_large_data_sets_do_not_overflow():
    """10,000 frames of 720 x 1280 of one class, and sums of them that leave 32 bits."""
    labels = np.full((720, 1280), 3, np.uint8)
    frame = metrics.confusion_matrix(labels, labels, CLASSES)
    assert frame.dtype == np.int64
    confusion = 10_000 * frame
    confusion[3, 1] = confusion[1, 3] = 7
    counts = class_counts(confusion)
    assert all(count.dtype == np.int64 for count in counts)
    pixels = 10_000 * labels.size
    assert counts[1].tolist() == [0, 7, 0, pixels + 7]
    iou = Fraction(pixels, pixels + 14)
    assert metrics.iou_per_class(confusion)[3] == float(iou)
    assert metrics.mean_iou(confusion) == float(iou / 2)
    assert metrics.pixel_accuracy(confusion) == float(Fraction(pixels, pixels + 14))
    # Products of boundary lengths leave 32 bits too.
    board = np.indices(labels.shape).sum(0) % 2 > 0
    assert metrics.boundary_f(board, board) == metrics.boundary_f(board, ~board, 1) == 1


# Nothing to count


def test_no_pixel_is_nan_without_a_warning():
    nothing = np.zeros((CLASSES, CLASSES), int)
    assert np.isnan(metrics.iou_per_class(nothing)).all()
    for metric in (
        metrics.mean_iou,
        metrics.pixel_accuracy,
    ):
        assert math.isnan(metric(nothing)), metric
    assert metrics.mean_iou(nothing, absent="zero") == 0


def test_frames_that_are_ignored_entirely(tmp_path):
    """Empty on both sides for the one evaluator, and nothing at all for the other."""
    gt, pred = np.full((2, 6, 8), IGNORED), np.ones((2, 6, 8), int)
    gt[1] = 0
    clip = make(tmp_path, "v", gt, pred, pred, {0, 1})
    result = run("object", [[clip]])
    assert result["J"] == result["AVSBench_mIoU"] == 50
    assert result["AVSBench_MaxF"] == result["AVSBench_F50"] == 0
    result = run("semantic", [[clip]])
    assert math.isnan(result.pop("foreground_mIoU"))  # nothing but background is true
    assert all(math.isfinite(value) for value in result.values())
    assert result["frames"] == 2 and result["mIoU"] == result["AVSBench_mIoU"] == 0
