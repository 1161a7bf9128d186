import itertools
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

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
    assigned = matcher()([predictions], targets, [3])[0]
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
    assigned = matcher()([predictions], targets, [2])[0, 0].tolist()
    assert sorted(assigned) == [-1, -1, 0, 1]


def test_no_objects():
    predictions, targets = make(frames=2, tokens=2, objects=0)
    assert matcher()([predictions], targets, [2]).shape == (1, 2, 0)


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
    assigned = matcher()([layered], targets, [2, 3])
    assert torch.equal(assigned[0], assigned[1])
    assert torch.equal(assigned[0, :2], matcher()([first], first_targets, [2])[0])
    assert torch.equal(assigned[0, 2:], matcher()([second], second_targets, [3])[0])


def test_not_a_number_does_not_stop_the_matching():
    predictions, targets = make(frames=2, tokens=3, objects=2)
    predictions.masks[0, :, 0] = float("nan")
    targets.sounding.fill_(True)
    assert 0 not in matcher()([predictions], targets, [2])[0, 0].tolist()


HOSTILE = [float("nan"), float("inf"), -float("inf"), 0.0, 1e4, -1e4]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    frames=st.integers(1, 3),
    tokens=st.integers(1, 4),
    objects=st.integers(0, 5),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    places=st.lists(
        st.tuples(
            st.sampled_from(["logits", "masks", "boxes"]),
            st.sampled_from([*HOSTILE, "largest", "lowest"]),
            st.floats(0, 1),
        ),
        max_size=4,
    ),
    silent=st.booleans(),
)
def test_whatever_is_predicted_the_assignment_is_valid(
    frames, tokens, objects, dtype, places, silent
):
    predictions, targets = make(frames=frames, tokens=tokens, objects=objects, layers=2)
    for name, value, share in places:
        limits = {"largest": torch.finfo(dtype).max, "lowest": torch.finfo(dtype).min}
        values = getattr(predictions, name)
        chosen = torch.rand(values.shape, generator=torch.Generator().manual_seed(frames)) <= share
        values[chosen] = limits.get(value, value)
    if silent:
        targets.sounding[:] = False
    predictions = Predictions(**{k: v.to(dtype).float() for k, v in vars(predictions).items()})

    def solve(costs):
        assert torch.from_numpy(costs).isfinite().all()
        return linear_sum_assignment(costs)

    with mock.patch("scipy.optimize.linear_sum_assignment", solve):
        assigned = matcher()([predictions], targets, [frames])
    assert assigned.shape == (2, frames, objects)
    for layer in assigned:
        assert (layer == layer[0]).all()
        used = layer[0][layer[0] >= 0].tolist()
        assert len(used) == len(set(used)) == min(tokens, objects)
        assert all(token < tokens for token in used)


def test_a_token_that_is_not_a_number_is_worse_than_any_other():
    """Also than one whose logits are wrong by 10,000 in each of 30 frames."""
    predictions, targets = make(frames=30, tokens=3, objects=2)
    targets.sounding[:] = True
    targets.masks[:, 1] = targets.masks[:, 0]
    predictions.masks[0, :, :2] = -1e4 * (2 * targets.masks - 1)
    predictions.logits[0, 4, 2] = float("nan")
    assert sorted(matcher()([predictions], targets, [30])[0, 0].tolist()) == [0, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_a_bad_token_leaves_the_choice_among_the_others_alone(bad):
    predictions, targets = make(frames=2, tokens=3, objects=3, seed=3)
    targets.sounding[:] = True
    predictions.masks[0, :, 2] = bad  # there are as many objects as tokens, so it is used too
    found = matcher()([predictions], targets, [2])[0, 0].tolist()
    costs = matcher().frame_costs(predictions, targets)[0].sum(0).double()
    bad_object = found.index(2)
    others = [m for m in range(3) if m != bad_object]
    rows, columns = linear_sum_assignment(costs[:2, others])
    assert [found.index(n) for n in rows] == [others[m] for m in columns]


def test_what_is_predicted_where_an_object_is_silent_does_not_matter():
    predictions, targets = make(frames=2, tokens=3, objects=2)
    targets.sounding[:] = torch.tensor([[True, True], [False, False]])
    expected = matcher()([predictions], targets, [2])
    for values in vars(predictions).values():
        values[:, 1] = float("nan")
    assert torch.equal(matcher()([predictions], targets, [2]), expected)
