import dataclasses
import itertools

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss

from qdformer.modeling.criterion import SegmentationCriterion, dice_loss
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.matcher import LossWeights, to_corners
from tests.samples import make_predictions as make


def criterion(**options):
    return SegmentationCriterion(weights=LossWeights(), **options)


def perfect(targets, tokens):
    """Predictions that say what the targets say, object m by token m."""
    frames, objects = targets.sounding.shape
    logits = torch.full((1, frames, tokens, 3), -20.0)
    masks = torch.full((1, frames, tokens, *targets.masks.shape[-2:]), -20.0)
    boxes = torch.full((1, frames, tokens, 4), 0.3)
    for t in range(frames):
        for m in range(objects):
            if targets.sounding[t, m]:
                logits[0, t, m, targets.classes[t, m]] = 20.0
            masks[0, t, m] = targets.masks[t, m] * 40 - 20
            boxes[0, t, m] = targets.boxes[t, m]
    return Predictions(logits, masks, boxes)


def test_nothing_to_lose_when_right():
    _, targets = make(frames=3, tokens=4, objects=2)
    for name, loss in criterion()(perfect(targets, 4), targets, [3]).items():
        assert float(loss) == pytest.approx(0, abs=1e-5), name


def test_against_loops():
    predictions, targets = make(frames=3, tokens=4, objects=2)
    losses = criterion()(predictions, targets, [3])
    assigned = criterion().matcher([predictions], targets, [3])[0, 0]
    count = int(targets.sounding.sum())
    classes = torch.zeros_like(predictions.logits[0])
    bce = dice = l1 = 0.0
    for t in range(3):
        for m in range(2):
            if not targets.sounding[t, m]:
                continue
            n = int(assigned[m])
            classes[t, n, targets.classes[t, m]] = 1
            mask, target = predictions.masks[0, t, n].sigmoid(), targets.masks[t, m]
            bce -= float((target * mask.log() + (1 - target) * (1 - mask).log()).mean())
            overlap, total = (mask * target).sum(), mask.sum() + target.sum()
            dice += float(1 - (2 * overlap + 1) / (total + 1))
            l1 += float((predictions.boxes[0, t, n] - targets.boxes[t, m]).abs().sum())
    focal = float(sigmoid_focal_loss(predictions.logits[0], classes, 0.25, 2.0, "sum"))
    assert float(losses["loss_class"]) == pytest.approx(2 * focal / count, rel=1e-4)
    assert float(losses["loss_mask"]) == pytest.approx(5 * bce / count, rel=1e-4)
    assert float(losses["loss_dice"]) == pytest.approx(2 * dice / count, rel=1e-4)
    assert float(losses["loss_bbox"]) == pytest.approx(5 * l1 / count, rel=1e-4)


def test_frames_without_annotation_carry_no_loss():
    predictions, targets = make(frames=3, tokens=4, objects=2)
    annotated = torch.tensor([True, False, True])
    targets = dataclasses.replace(
        targets, annotated=annotated, sounding=targets.sounding & annotated[:, None]
    )
    leaves = {name: value.clone().requires_grad_() for name, value in vars(predictions).items()}
    sum(criterion()(Predictions(**leaves), targets, [3]).values()).backward()
    for name, leaf in leaves.items():
        assert leaf.grad[:, 1].abs().max() == 0, name
        assert leaf.grad[:, 0].abs().max() > 0, name


def test_order_of_tokens_and_objects_does_not_matter():
    predictions, targets = make(frames=3, tokens=4, objects=2)
    shuffled = Predictions(
        *(value[:, :, torch.tensor([2, 0, 3, 1])] for value in vars(predictions).values())
    )
    names = ("classes", "masks", "boxes", "sounding")
    swapped = dataclasses.replace(targets, **{n: getattr(targets, n).flip(1) for n in names})
    expected = criterion()(predictions, targets, [3])
    for name, loss in criterion()(shuffled, swapped, [3]).items():
        torch.testing.assert_close(loss, expected[name])


def test_equal_layers_lose_as_one():
    predictions, targets = make(frames=3, tokens=4, objects=2)
    layered = Predictions(
        *(value.expand(3, *value.shape[1:]) for value in vars(predictions).values())
    )
    expected = criterion()(predictions, targets, [3])
    for name, loss in criterion()(layered, targets, [3]).items():
        torch.testing.assert_close(loss, expected[name])


@pytest.mark.parametrize("pixel_loss", ["bce", "focal"])
def test_no_objects_leave_only_the_empty_class(pixel_loss):
    predictions, targets = make(frames=2, tokens=3, objects=0)
    losses = criterion(pixel_loss=pixel_loss)(predictions, targets, [2])
    assert all(loss.isfinite() for loss in losses.values())
    assert float(losses.pop("loss_class")) > 0
    assert all(float(loss) == 0 for loss in losses.values())


def test_extreme_logits_stay_finite():
    predictions, targets = make(frames=2, tokens=3, objects=2)
    extreme = Predictions(predictions.logits * 1e4, predictions.masks * 1e4, predictions.boxes * 0)
    leaves = {name: value.clone().requires_grad_() for name, value in vars(extreme).items()}
    total = sum(criterion()(Predictions(**leaves), targets, [2]).values())
    total.backward()
    assert total.isfinite()
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())


def test_dice_by_hand():
    logits = torch.tensor([[100.0, 100.0, -100.0, -100.0]])
    assert float(dice_loss(logits, torch.tensor([[1.0, 0, 0, 0]]))) == pytest.approx(1 - 3 / 4)


def test_corners():
    corners = to_corners(torch.tensor([0.5, 0.5, 0.2, 0.4]))
    torch.testing.assert_close(corners, torch.tensor([0.4, 0.3, 0.6, 0.7]))


def test_unknown_pixel_loss():
    with pytest.raises(AssertionError, match="'l2' is not one of"):
        criterion(pixel_loss="l2")


def test_a_clips_token_has_its_objects_class_in_every_frame():
    """One object of one clip that sounds in the second of three frames, and one that never does."""
    _, targets = make(frames=3, tokens=4, objects=2)
    sounding = torch.tensor([[False, False], [True, False], [False, False]])
    targets = dataclasses.replace(targets, sounding=sounding)
    right = perfect(targets, 4)
    right.logits[0, :, 0, targets.classes[0, 0]] = 20.0
    losses = criterion()(perfect(targets, 4), targets, [3], right)
    assert all(float(loss) == pytest.approx(0, abs=1e-5) for loss in losses.values())
    # The frames' own predictions are silent in two of the frames.
    wrong = criterion()(perfect(targets, 4), targets, [3], perfect(targets, 4))
    assert float(wrong["loss_global_class"]) > 1


@pytest.mark.parametrize("annotated", [[True, False, False], [True, True, True]])
@pytest.mark.parametrize("heard", [False, True])
def test_silence_of_a_clip_is_known_if_all_of_its_frames_are(annotated, heard):
    predictions, targets = make(frames=3, tokens=4, objects=1)
    annotated = torch.tensor(annotated)
    sounding = torch.full((3, 1), heard) & annotated[:, None]
    targets = dataclasses.replace(targets, annotated=annotated, sounding=sounding)
    logits = predictions.logits.clone().requires_grad_()
    of_clips = dataclasses.replace(predictions, logits=logits)
    criterion()(predictions, targets, [3], of_clips)["loss_global_class"].backward()
    counted = logits.grad.abs().sum((0, 2, 3)) > 0
    assert counted.tolist() == (annotated & (heard | annotated.all())).tolist()


def test_tokens_of_a_clip_and_of_its_frames_share_one_assignment():
    local, targets = make(frames=3, tokens=4, objects=2)
    of_clips, _ = make(frames=3, tokens=4, objects=2, seed=1)
    together = criterion().matcher([local, of_clips], targets, [3])
    costs = sum(criterion().matcher.frame_costs(each, targets) for each in (local, of_clips))
    costs = (costs * targets.sounding[:, None]).sum(1)[0]
    pairs = itertools.permutations(range(4), 2)
    best = min(pairs, key=lambda tokens: float(costs[tokens[0], 0] + costs[tokens[1], 1]))
    assert together[0, 0].tolist() == list(best)
