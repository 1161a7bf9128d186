import torch
from fvcore.nn import giou_loss as reference

from qdformer.modeling.boxes import giou_loss, to_corners


def test_by_hand():
    unit = torch.tensor([0.0, 0, 1, 1])
    cases = [([0.0, 0, 1, 1], 1.0), ([0.0, 0, 2, 1], 0.5), ([2.0, 0, 3, 1], -1 / 3)]
    for box, giou in cases:
        torch.testing.assert_close(giou_loss(unit, torch.tensor(box)), torch.tensor(1 - giou))


def test_against_fvcore_with_gradients():
    generator = torch.Generator().manual_seed(0)
    boxes, targets = (torch.rand(300, 4, generator=generator, dtype=torch.float64) for _ in "ab")
    targets[:20, 2:] = 0  # without area
    targets[20:40] = boxes[20:40]
    found = giou_loss(to_corners(boxes.requires_grad_()), to_corners(targets))
    expected = reference(to_corners(boxes), to_corners(targets), reduction="none")
    torch.testing.assert_close(found, expected)
    first, second = (torch.autograd.grad(x[40:].sum(), boxes)[0] for x in (found, expected))
    torch.testing.assert_close(first, second)


def test_shapes_broadcast():
    boxes, targets = torch.rand(2, 3, 1, 4), torch.rand(2, 1, 5, 4)
    pairs = giou_loss(to_corners(boxes), to_corners(targets))
    assert pairs.shape == (2, 3, 5)
    torch.testing.assert_close(
        pairs[1, 2, 4], giou_loss(to_corners(boxes[1, 2, 0]), to_corners(targets[1, 0, 4]))
    )
