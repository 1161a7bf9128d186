"""Losses and their gradients are finite for whatever finite predictions and possible targets."""

import dataclasses
import itertools

import pytest
import torch
from detectron2.structures import BitMasks, Instances

from qdformer.modeling.clip_batch import ClipBatch, Targets
from qdformer.modeling.criterion import PIXEL_LOSSES, SegmentationCriterion
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.matcher import LossWeights
from tests.samples import make_predictions

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIDE, CLASSES, TOKENS = 32, 3, 4


def collate(*clips, annotated=True):
    """Targets of clips of masks (T, M, H, W)."""
    inputs = [
        {
            "image": torch.zeros(len(masks), 3, *masks.shape[-2:], dtype=torch.uint8),
            "audio": torch.zeros(len(masks), 1, 96, 64),
            "instances": [
                Instances(
                    tuple(masks.shape[-2:]),
                    gt_classes=torch.arange(masks.shape[1]) % CLASSES,
                    gt_masks=BitMasks(frame),
                )
                for frame in masks
            ],
            "annotated": torch.full((len(masks),), annotated),
        }
        for masks in clips
    ]
    batch = ClipBatch.collate(inputs, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), 32)
    return Targets.collate(inputs, batch), batch.lengths


def painted(frames=2, objects=2, rows=slice(None), columns=slice(None)):
    masks = torch.zeros(frames, objects, SIDE, SIDE, dtype=torch.bool)
    masks[:, :, rows, columns] = True
    return masks


TARGETS = {
    "no object": lambda: collate(painted(objects=0)),
    "no object in one clip": lambda: collate(painted(objects=0), painted(1, 2, slice(9, 20))),
    "no annotated frame": lambda: collate(painted(), annotated=False),
    "objects that are silent": lambda: collate(painted(rows=slice(0, 0))),
    "one pixel": lambda: collate(painted(rows=slice(SIDE - 1, None), columns=slice(0, 1))),
    "all foreground": lambda: collate(painted()),
    "one column": lambda: collate(painted(columns=slice(7, 8))),
    "more objects than tokens": lambda: collate(painted(objects=TOKENS + 3, rows=slice(3, 20))),
    "one frame": lambda: collate(painted(frames=1, columns=slice(5, 9))),
}


def signs(*shape):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1


LOGITS = {
    "ordinary": lambda shape, dtype: 3 * signs(*shape),
    "zero": lambda shape, dtype: torch.zeros(shape),
    "1e4": lambda shape, dtype: 1e4 * signs(*shape),
    "largest": lambda shape, dtype: torch.finfo(dtype).max * signs(*shape),
    "saturated high": lambda shape, dtype: torch.full(shape, torch.finfo(dtype).max),
    "saturated low": lambda shape, dtype: torch.full(shape, torch.finfo(dtype).min),
}
BOXES = {
    "equal": [0.5, 0.5, 0.25, 0.25],
    "without area": [0.5, 0.5, 0.0, 0.0],
    "without width": [7.5 / SIDE, 0.5, 0.0, 1.0],
    "without height": [0.5, 1.0, 1.0, 0.0],
    "whole frame": [0.5, 0.5, 1.0, 1.0],
    "outside": [9.0, -9.0, 2.0, 3.0],
    "inside out": [0.5, 0.5, -1.0, -0.5],
}


def check(predictions, targets, lengths, pixel_loss="bce"):
    leaves = Predictions(**{k: v.requires_grad_() for k, v in vars(predictions).items()})
    criterion = SegmentationCriterion(weights=LossWeights(), pixel_loss=pixel_loss)
    losses = criterion(leaves, targets, lengths)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values()), losses
    sum(losses.values()).backward()
    for name, leaf in vars(leaves).items():
        assert leaf.grad.isfinite().all(), name
    return leaves


@pytest.mark.parametrize("pixel_loss", PIXEL_LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TARGETS)
def test_losses_and_gradients_are_finite(case, dtype, pixel_loss):
    targets, lengths = TARGETS[case]()
    frames, (height, width) = sum(lengths), targets.masks.shape[-2:]
    # Boxes have losses of their own, so that each kind of logits need not meet each kind of boxes.
    for logits, box in zip(itertools.cycle(LOGITS.values()), BOXES.values()):
        predictions = Predictions(
            logits=logits((2, frames, TOKENS, CLASSES), dtype).to(dtype),
            masks=logits((2, frames, TOKENS, height, width), dtype).to(dtype),
            boxes=torch.tensor(box).expand(2, frames, TOKENS, 4).to(dtype, copy=True),
        )
        leaves = check(predictions, targets, lengths, pixel_loss)
        if not targets.annotated.any():
            assert not any(leaf.grad.any() for leaf in vars(leaves).values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "objects", "classes"), [(1, 1, 1), (1, 5, 3), (7, 1, 1)])
def test_one_token_and_one_class(dtype, tokens, objects, classes):
    predictions, targets = make_predictions(frames=1, tokens=tokens, objects=objects)
    targets = dataclasses.replace(targets, classes=targets.classes % classes)
    predictions = dataclasses.replace(predictions, logits=predictions.logits[..., :classes])
    values = {name: value.detach().to(dtype) for name, value in vars(predictions).items()}
    check(Predictions(**values), targets, [1])


@pytest.mark.parametrize("box", BOXES.values(), ids=list(BOXES))
def test_target_boxes_without_area(box):
    """No mask has such a box, but nothing would stop with one."""
    predictions, targets = make_predictions(frames=2, tokens=3, objects=2)
    predictions.boxes[:] = targets.boxes[:] = torch.tensor(box)
    check(predictions, targets, [2])


@pytest.mark.parametrize("side", [32, 1024])
def test_whatever_sounds_has_a_box_of_a_pixel_or_more(side):
    mask = torch.zeros(1, 3, side, side, dtype=torch.bool)
    mask[0, 0, 0, 0] = mask[0, 1, -1, -1] = True
    targets, _ = collate(mask)
    assert targets.sounding.tolist() == [[True, True, False]]
    assert (targets.boxes[0, :2, 2:] == 1 / side).all() and not targets.boxes[0, 2].any()
    assert targets.masks.flatten(2).sum(-1).tolist() == [[1 / 16, 1 / 16, 0]]
    boxes = torch.tensor([0.5, 0.5, 0.0, 1.0]).expand(1, 1, 2, 4).to(torch.float16, copy=True)
    masks = torch.zeros(1, 1, 2, side // 4, side // 4, dtype=torch.float16)
    check(Predictions(torch.zeros(1, 1, 2, CLASSES), masks, boxes), targets, [1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["logits", "masks", "boxes"])
def test_what_is_not_finite_does_not_pass_for_sound(name, value):
    predictions, targets = make_predictions(frames=2, tokens=2, objects=2)
    targets.sounding[:] = True
    getattr(predictions, name)[:, 0] = value
    losses = SegmentationCriterion(weights=LossWeights())(predictions, targets, [2])
    assert not sum(losses.values()).isfinite()


def test_losses_of_half_precision_are_those_of_the_same_numbers_in_single_precision():
    predictions, targets = make_predictions(frames=2, tokens=3, objects=2)
    for dtype in DTYPES[1:]:
        half = Predictions(**{k: v.to(dtype) for k, v in vars(predictions).items()})
        single = Predictions(**{k: v.float() for k, v in vars(half).items()})
        losses, expected = (
            SegmentationCriterion(weights=LossWeights())(p, targets, [2]) for p in (half, single)
        )
        assert losses == expected
