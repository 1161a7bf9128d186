"""Metrics of masks and label maps against published values and explicit loops."""

import math
import tracemalloc

import numpy as np
import pytest

from qdformer.evaluation import metrics
from qdformer.evaluation.confusion import class_counts
from tests.evaluation import averages

H, W = 48, 64
EMPTY = np.zeros((H, W), bool)


@pytest.mark.parametrize(
    "function",
    [
        metrics.region_similarity,
        metrics.boundary_f,
        metrics.avsbench_frame_iou,
        metrics.avsbench_f_curves,
        lambda pred, gt: metrics.confusion_matrix(pred, gt, 2),
    ],
)
def test_masks_of_different_shape_are_refused(function):
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        function(np.zeros((4, 5), bool), np.zeros((5, 4), bool))


# AVSBench, binary


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float32)))


def test_avsbench_binary_of_each_frame(binary_frames):
    prob, gt = binary_frames
    assert (prob > 0.5).sum(axis=(1, 2)).tolist() == [517, 517, 0, 0]
    assert metrics.avsbench_frame_iou(prob > 0.5, gt) == pytest.approx(
        [0.642442, 0.831706, 1.0, 0.0], abs=1e-6
    )
    alone = [averages.binary_f(prob[i : i + 1], gt[i : i + 1]) for i in range(4)]
    assert alone == pytest.approx([0.831708, 0, 0, 0.104482], abs=1e-6)


@pytest.mark.parametrize(("batch", "fscore"), [(None, 0.434049), (4, 0.434049), (2, 0.468095)])
def test_avsbench_binary_batches(binary_frames, batch, fscore):
    prob, gt = binary_frames
    assert averages.binary_iou(prob, gt, batch) == pytest.approx(0.618537, abs=1e-6)
    assert averages.binary_f(prob, gt, batch) == pytest.approx(fscore, abs=1e-6)


def test_avsbench_f_curve(binary_frames):
    prob, gt = binary_frames
    curves = metrics.avsbench_f_curves(prob, gt)
    assert curves.shape == (4, 255)
    assert np.isnan(curves[1:3]).all() and not np.isnan(curves[[0, 3]]).any()
    assert curves[0].argmax() == 168
    assert curves[0, [0, 127, 254]] == pytest.approx([0.244756, 0.816945, 0], abs=1e-6)
    assert curves[0].mean() == pytest.approx(0.725972, abs=1e-6)
    assert averages.binary_f(prob, gt) == np.nanmean(curves, axis=0).max()


def test_region_f_at_one_half(binary_frames):
    prob, gt = binary_frames
    pred = prob > 0.5
    hits = (pred[0] & gt[0]).sum()
    assert hits / pred[0].sum() == pytest.approx(0.854932, abs=1e-6)
    assert hits / gt[0].sum() == pytest.approx(0.721044, abs=1e-6)
    scores = metrics.region_f(pred, gt)
    assert scores[[0, 3]] == pytest.approx([0.819803, 0], abs=1e-6)
    assert np.isnan(scores[1:3]).all()
    hard = sigmoid(np.where(pred, 10.0, -10.0))
    assert averages.binary_f(hard[:1], gt[:1]) == pytest.approx(0.819803, abs=1e-6)


@pytest.mark.parametrize(("logit", "iou"), [(1.0, 0.0), (-1.0, 1.0)])
def test_avsbench_iou_of_a_silent_frame_is_its_true_negative_rate(logit, iou):
    prob = sigmoid(np.full((1, H, W), logit))
    assert averages.binary_iou(prob, EMPTY[None]) == iou


def test_avsbench_f_curves_equal_255_comparisons():
    random = np.random.default_rng(0)
    gt = random.random((3, 20, 30)) < 0.3
    prob = random.random((3, 20, 30)).astype(np.float32)
    thresholds = np.linspace(0, 1, 255, dtype=np.float32)
    prob[0, :17, :15] = thresholds.reshape(17, 15)  # values that equal a threshold
    prob[1] = np.round(prob[1])
    curves = metrics.avsbench_f_curves(prob, gt)
    for curve, frame_prob, frame_gt in zip(curves, prob, gt, strict=True):
        for score, threshold in zip(curve, thresholds, strict=True):
            pred = frame_prob >= threshold
            precision = (pred & frame_gt).sum() / (pred.sum() + 1e-20)
            recall = (pred & frame_gt).sum() / (frame_gt.sum() + 1e-20)
            below = 0.3 * precision + recall
            expected = 1.3 * precision * recall / below if below else 0.0
            assert score == pytest.approx(expected, abs=1e-12)


def test_avsbench_f_curve_is_exact_at_the_thresholds_and_beside_them():
    thresholds = np.linspace(0, 1, 255, dtype=np.float32)
    beside = [np.nextafter(thresholds, np.float32(limit)) for limit in (-1, 2)]
    prob = np.stack([thresholds, *beside])
    for seed in range(3):
        gt = np.random.default_rng(seed).random(prob.shape) < 0.4
        hits, predicted = (
            np.array([(prob[mask] >= t).sum() for t in thresholds]) for mask in (gt, gt | True)
        )
        expected = 13 * hits / (3 * gt.sum() + 10 * predicted)
        assert np.array_equal(metrics.avsbench_f_curves(prob[None], gt[None])[0], expected)


# Label maps


CONFUSION = np.array(
    [
        [4706, 642, 432, 70, 294],
        [28, 1086, 210, 362, 42],
        [138, 0, 1128, 168, 294],
        [490, 0, 0, 1176, 126],
        [308, 0, 0, 0, 588],
    ]
)


def test_confusion_matrix_has_true_classes_as_rows(label_maps):
    confusion = metrics.confusion_matrix(*label_maps, 5)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == CONFUSION.tolist()
    gt, pred = np.array([[0, 2, 255]]), np.array([[1, 2, 0]])
    assert metrics.confusion_matrix(pred, gt, 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_confusion_matrix_of_uint8_maps_with_many_classes():
    labels = np.arange(71, dtype=np.uint8)
    assert metrics.confusion_matrix(labels, labels, 71).tolist() == np.eye(71).tolist()


@pytest.mark.parametrize("num_classes", [1, 2, 15, 16, 17, 71, 255])
@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_confusion_matrix_equals_a_loop(num_classes, kind):
    random = np.random.default_rng(num_classes)
    for ignored in (0.0, 0.2):
        pred, gt = random.integers(0, num_classes, (2, 3, 20, 30)).astype(kind)
        gt[random.random(gt.shape) < ignored] = 255
        expected = np.zeros((num_classes, num_classes), int)
        for true, predicted in zip(gt.flat, pred.flat):
            if true != 255:
                expected[true, predicted] += 1
        assert metrics.confusion_matrix(pred, gt, num_classes).tolist() == expected.tolist()


def test_memory_grows_neither_with_the_classes_nor_with_the_thresholds():
    pred = np.arange(360 * 640, dtype=np.uint32).reshape(360, 640).astype(np.uint8) % 71
    prob, gt = (pred / np.float32(70))[None], pred[None] > 30
    for measure in (
        lambda: metrics.confusion_matrix(pred, pred[::-1], 71),
        lambda: metrics.avsbench_f_curves(prob, gt),
    ):
        tracemalloc.start()
        measure()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 24 * pred.size


def test_confusion_matrix_ignores_the_prediction_where_ground_truth_does():
    assert metrics.confusion_matrix(np.array([255, 1]), np.array([255, 1]), 2).sum() == 1


@pytest.mark.parametrize(
    ("pred", "gt", "message"),
    [
        ([5], [1], "prediction holds labels from 5 to 5, allowed are 0 to 4"),
        ([1], [7], "ground truth holds labels from 7 to 7"),
        ([-1], [1], "prediction holds labels from -1"),
    ],
)
def test_confusion_matrix_refuses_labels_out_of_range(pred, gt, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion_matrix(np.array(pred), np.array(gt), 5)


def test_dataset_level_values():
    assert metrics.iou_per_class(CONFUSION) == pytest.approx(
        [0.662071, 0.458228, 0.475949, 0.491639, 0.355932], abs=1e-6
    )
    assert metrics.mean_iou(CONFUSION) == pytest.approx(0.488764, abs=1e-6)
    assert metrics.mean_iou(CONFUSION, absent="zero") == metrics.mean_iou(CONFUSION)
    assert metrics.pixel_accuracy(CONFUSION) == pytest.approx(0.706706, abs=1e-6)


def test_class_predicted_without_ground_truth(label_maps):
    pred, gt = label_maps
    gt[gt == 4] = 0
    confusion = metrics.confusion_matrix(pred, gt, 5)
    assert metrics.mean_iou(confusion, absent="exclude") == pytest.approx(0.519331, abs=1e-6)
    assert metrics.mean_iou(confusion, absent="zero") == pytest.approx(0.415465, abs=1e-6)
    assert np.nanmean(metrics.iou_per_class(confusion)) == pytest.approx(0.415465, abs=1e-6)
    assert averages.semantic(pred, gt, 5) == pytest.approx((0.415008, 0.553207), abs=1e-6)


def test_class_in_neither(label_maps):
    pred, gt = label_maps
    confusion = metrics.confusion_matrix(pred[3], gt[3], 5)
    assert math.isnan(metrics.iou_per_class(confusion)[4])
    assert metrics.mean_iou(confusion) == pytest.approx(0.518294, abs=1e-6)
    assert metrics.mean_iou(confusion, absent="zero") == pytest.approx(0.518294 * 4 / 5, abs=1e-6)
    expected = (0.414635, 0.539410)
    assert averages.semantic(pred[3:], gt[3:], 5) == pytest.approx(expected, abs=1e-6)


def test_mean_iou_without_background():
    iou = metrics.iou_per_class(CONFUSION)
    assert metrics.mean_iou(CONFUSION, background=False) == pytest.approx(iou[1:].mean())
    only_background = np.diag([9, 0, 0])
    assert metrics.mean_iou(only_background) == 1
    assert math.isnan(metrics.mean_iou(only_background, background=False))
    assert metrics.mean_iou(only_background, "zero", background=False) == 0
    for background in (True, False):
        assert metrics.mean_iou(np.diag([0, 4, 0]), background=background) == 1


def test_mean_iou_refuses_an_unknown_convention():
    with pytest.raises(ValueError, match='"skip", allowed are "exclude" and "zero"'):
        metrics.mean_iou(CONFUSION, absent="skip")


# AVSBench, semantic


def test_avsbench_semantic_values(label_maps):
    pred, gt = label_maps
    frames = [metrics.confusion_matrix(p, g, 5) for p, g in zip(pred, gt, strict=True)]
    iou, fscore, count = metrics.avsbench_class_sums(*class_counts(np.stack(frames)))
    assert iou == pytest.approx([2.637163, 1.832743, 1.902510, 1.966744, 0.976744], abs=1e-6)
    assert fscore == pytest.approx([3.243588, 2.511084, 2.561116, 2.643425, 1.312500], abs=1e-6)
    assert count.tolist() == [4, 4, 4, 4, 3]
    assert averages.semantic(pred, gt, 5) == pytest.approx((0.482074, 0.635461), abs=1e-6)
    for kept, expected in (
        (slice(-1), (0.521197, 0.684951)),
        (slice(1, None), (0.43777, 0.591602)),
    ):
        means = [metrics.avsbench_class_mean(s[kept], count[kept]) for s in (iou, fscore)]
        assert means == pytest.approx(expected, abs=1e-6)


def test_padding_with_background_lifts_the_scores(label_maps):
    pred, gt = (np.concatenate([maps, np.zeros((6, H, W), int)]) for maps in label_maps)
    assert averages.semantic(pred, gt, 5) == pytest.approx((0.522959, 0.658153), abs=1e-6)
    confusion = metrics.confusion_matrix(pred, gt, 5)
    assert metrics.mean_iou(confusion) == pytest.approx(0.537540, abs=1e-6)


def test_avsbench_semantic_ignores_marked_pixels_and_counts_unseen_classes_as_zero():
    gt = np.array([[[0, 1, 255, 255]]])
    pred = np.array([[[0, 1, 1, 0]]])
    assert averages.semantic(pred, gt, 4) == (0.5, 0.5)
