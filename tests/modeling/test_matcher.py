import itertools

import pytest
import torch
import torch.nn.functional as F

from qdformer.modeling.clip_batch import Targets
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.matcher import HungarianMatcher, LossWeights, to_corners
from tests.samples import make_predictions as make


def matcher():
    return HungarianMatcher(LossWeights(), focal_alpha=0.25, focal_gamma=2.0)


def pair_cost(predictions, targets, t, n, m):
    """Eq. 10 for one token, object and frame, written out."""
    weights = LossWeights()
    logit = predictions.logits[0, t, n, targets.classes[t, m]]
    p = logit.sigmoid()
    focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
    mask, target = predictions.masks[0, t, n], targets.masks[t, m]
    bce = F.binary_cross_entropy_with_logits(mask, target)
    overlap = (mask.sigmoid() * target).sum()
    dice = 1 - (2 * overlap + 1) / (mask.sigmoid().sum() + target.sum() + 1)
    box, other = predictions.boxes[0, t, n], targets.boxes[t, m]
    a, b = to_corners(box).tolist(), to_corners(other).tolist()
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    giou = 1 - (inter / union - (hull - union) / hull)
    return float(
        weights.classes * focal + weights.mask * bce + weights.dice * dice
        + weights.l1 * (box - other).abs().sum() + weights.giou * giou
    )  # fmt: skip


def test_costs_are_eq_10():
    predictions, targets = make(frames=2, tokens=3, objects=2)
    costs = matcher().frame_costs(predictions, targets)
    for t, n, m in itertools.product(range(2), range(3), range(2)):
        expected = pair_cost(predictions, targets, t, n, m)
        assert float(costs[0, t, n, m]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_best_of_all_assignments(seed):
    predictions, targets = make(frames=3, tokens=4, objects=3, seed=seed)
    assigned = matcher()(predictions, targets, [3])[0]
    assert (assigned == assigned[0]).all()  # one track of a clip keeps its token

    def total(tokens):
        return sum(
            pair_cost(predictions, targets, t, n, m)
            for t in range(3)
            for m, n in enumerate(tokens)
            if targets.sounding[t, m]
        )

    best = min(itertools.permutations(range(4), 3), key=total)
    assert total(assigned[0].tolist()) == pytest.approx(total(best), rel=1e-5)


def test_more_objects_than_tokens():
    predictions, targets = make(frames=2, tokens=2, objects=4)
    assigned = matcher()(predictions, targets, [2])[0, 0].tolist()
    assert sorted(assigned) == [-1, -1, 0, 1]


def test_no_objects():
    predictions, targets = make(frames=2, tokens=2, objects=0)
    assert matcher()(predictions, targets, [2]).shape == (1, 2, 0)


def test_clips_and_layers_are_matched_on_their_own():
    first, first_targets = make(frames=2, tokens=3, objects=2, seed=1)
    second, second_targets = make(frames=3, tokens=3, objects=2, seed=2)

    def join(a, b, axis):
        return torch.cat((a, b), dim=axis)

    both = Predictions(
        *(join(getattr(first, name), getattr(second, name), 1) for name in vars(first))
    )
    names = ("classes", "masks", "boxes", "sounding", "annotated")
    targets = Targets(
        *(join(getattr(first_targets, n), getattr(second_targets, n), 0) for n in names),
        counts=[2, 2],
    )
    layered = Predictions(*(value.expand(2, *value.shape[1:]) for value in vars(both).values()))
    assigned = matcher()(layered, targets, [2, 3])
    assert torch.equal(assigned[0], assigned[1])
    assert torch.equal(assigned[0, :2], matcher()(first, first_targets, [2])[0])
    assert torch.equal(assigned[0, 2:], matcher()(second, second_targets, [3])[0])


def test_not_a_number_does_not_stop_the_matching():
    predictions, targets = make(frames=2, tokens=3, objects=2)
    predictions.masks[0, :, 0] = float("nan")
    targets.sounding.fill_(True)
    assert 0 not in matcher()(predictions, targets, [2])[0, 0].tolist()
