"""J, boundary F and sequence statistics against published values and explicit loops."""

import math
from fractions import Fraction

import numpy as np
import pytest

from qdformer.evaluation import metrics

H, W = 48, 64
Y, X = np.mgrid[:H, :W]


def disc(cy, cx, r, scale=1, shape=(H, W)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - cy * scale) ** 2 + (x - cx * scale) ** 2 <= (r * scale) ** 2


def box(top, bottom, left, right):
    return (top <= Y) & (bottom >= Y) & (left <= X) & (right >= X)


EMPTY, FULL = np.zeros((H, W), bool), np.ones((H, W), bool)
SQUARE = box(10, 29, 12, 39)


@pytest.mark.parametrize(
    ("scale", "shape", "counts", "region", "by_tolerance"),
    [
        (
            1,
            (48, 64),
            (613, 529, 448, 694),
            0.645533,
            {0.008: 0.241071, 1: 0.241071, 2: 0.383929, 3: 0.660275, 5: 0.964593},
        ),
        (
            4,
            (224, 224),
            (9845, 8497, 7198, 11144),
            0.645908,
            {0.008: 0.130610, 1: 0.056127, 2: 0.089450, 3: 0.130610, 5: 0.216695},
        ),
    ],
)
def test_davis_of_two_discs(scale, shape, counts, region, by_tolerance):
    gt, pred = disc(24, 30, 14, scale, shape), disc(22, 34, 13, scale, shape)
    assert (gt.sum(), pred.sum(), (gt & pred).sum(), (gt | pred).sum()) == counts
    assert metrics.region_similarity(pred, gt) == pytest.approx(region, abs=1e-6)
    for tolerance, expected in by_tolerance.items():
        assert metrics.boundary_f(pred, gt, tolerance) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("gt", "pred", "region", "boundary"),
    [
        (SQUARE, box(11, 30, 14, 41), 0.789137, 0.593750),
        (EMPTY, EMPTY, 1, 1),
        (EMPTY, SQUARE, 0, 0),
        (SQUARE, EMPTY, 0, 0),
        (FULL, FULL, 1, 1),
        (FULL, EMPTY, 0, 1),
        (SQUARE, FULL, 0.182292, 0),
        (box(0, 19, 0, 19), box(0, 21, 0, 19), 0.909091, 0.525000),
    ],
)
def test_davis_special_cases(gt, pred, region, boundary):
    assert metrics.region_similarity(pred, gt) == pytest.approx(region, abs=1e-6)
    assert metrics.boundary_f(pred, gt) == pytest.approx(boundary, abs=1e-6)


def test_boundary_tolerance_from_one_on_is_in_pixels():
    assert metrics.boundary_f(box(11, 30, 14, 41), SQUARE, 2) == pytest.approx(0.989583, abs=1e-6)


def loop_boundary_f(pred, gt, bound_th):
    """DAVIS's definition, pixel by pixel."""
    height, width = gt.shape

    def boundary(mask):
        found = set()
        for y in range(height):
            for x in range(width):
                neighbors = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                inside = [n for n in neighbors if n[0] < height and n[1] < width]
                if any(mask[n] != mask[y, x] for n in inside):
                    found.add((y, x))
        return found

    def share(points, targets):
        if not points:
            return 1.0
        near = sum(
            any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in targets) for y, x in points
        )
        return near / len(points)

    radius = bound_th if bound_th >= 1 else math.ceil(bound_th * math.sqrt(height**2 + width**2))
    pred_points, gt_points = boundary(pred), boundary(gt)
    precision, recall = share(pred_points, gt_points), share(gt_points, pred_points)
    if not pred_points and gt_points:
        recall = 0.0
    if pred_points and not gt_points:
        precision = 0.0
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


@pytest.mark.parametrize("bound_th", [0.008, 0.07, 1, 2, 3, 5])
def test_boundary_f_equals_loops(bound_th):
    random = np.random.default_rng(int(bound_th * 1000))
    for density in (0.0, 0.02, 0.3, 0.97, 1.0):
        for shape in ((23, 31), (1, 17), (40, 8)):
            pred, gt = random.random((2, *shape)) < density
            # A solid block that touches a border of the frame, where the neighbor rules change.
            pred[shape[0] // 2 :, shape[1] // 3 :] = True
            gt[: shape[0] // 2 + 1, : shape[1] // 2] = density < 0.9
            expected = loop_boundary_f(pred, gt, bound_th)
            assert metrics.boundary_f(pred, gt, bound_th) == pytest.approx(expected, abs=1e-12)
            assert metrics.boundary_f(gt, pred, bound_th) == pytest.approx(expected, abs=1e-12)


def distances_boundary_f(pred, gt, radius):
    """DAVIS's definition, from the distances between all pairs of boundary pixels."""

    def points(mask):
        near = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        east, south, diagonal = near[:-1, 1:], near[1:, :-1], near[1:, 1:]
        return np.argwhere((mask != east) | (mask != south) | (mask != diagonal))

    first, second = points(pred), points(gt)
    squared = ((first[:, None] - second[None]) ** 2).sum(axis=2)
    precision = Fraction(int((squared.min(axis=1) <= radius**2).sum()), len(first))
    recall = Fraction(int((squared.min(axis=0) <= radius**2).sum()), len(second))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@pytest.mark.parametrize("width", [2, 62, 63, 64, 65, 66, 127, 128, 150])
def test_boundary_f_equals_distances_whatever_the_width_and_the_radius(width):
    random = np.random.default_rng(width)
    for radius in (1, 1.5, 2, 2.5, 3, 4.5, 5, 8, 12, 13, 63, 64, 65.3, 130, 400):
        # Few pixels, far from each other, so that every radius decides some of them.
        pred, gt = random.random((2, 30, width)) < random.choice([0.002, 0.01, 0.1])
        pred[random.integers(30), [0, -1]] = gt[random.integers(30), width // 2] = True
        pred[:2, : width // 2], gt[-1, 1:] = random.random(2) < 0.3
        assert metrics.boundary_f(pred, gt, radius) == distances_boundary_f(pred, gt, radius)


@pytest.mark.parametrize("shape", [(224, 224), (720, 1280)])
def test_boundary_f_of_blobs_equals_distances(shape):
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape).reshape(2, 1, 1)
    gt = (y - 0.4) ** 2 + (x - 0.6) ** 2 < 0.04 * (1 + 0.3 * np.sin(25 * x) * np.cos(19 * y))
    for shift in (0.0, 0.01, 0.03):
        pred = (y - 0.4) ** 2 + (x - 0.6 + shift) ** 2 < 0.04 * (1 + 0.3 * np.sin(23 * x))
        radius = math.ceil(0.008 * math.hypot(*shape))
        assert metrics.boundary_f(pred, gt) == distances_boundary_f(pred, gt, radius)


def test_boundary_f_of_a_mask_far_from_every_border_ignores_the_canvas():
    pred, gt = disc(24, 30, 9), disc(22, 34, 9)
    large = [np.pad(mask, 30) for mask in (pred, gt)]
    assert metrics.boundary_f(*large, 2) == metrics.boundary_f(pred, gt, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.55, 0.5, 0.45, 0.3, 0.2, 0.6, 1.0], (0.6, 0.6, 0.2)),
        ([0.9, 0.6, 0.4, 0.5, 1.0], (0.68, 0.6, 0.0)),
        ([0.4], (0.4, 0.0, 0.0)),
    ],
)
def test_davis_statistics(values, expected):
    assert metrics.davis_statistics(values) == pytest.approx(expected, abs=1e-12)
