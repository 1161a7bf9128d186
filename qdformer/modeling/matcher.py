"""One assignment a clip between token tracks and objects (Eq. 10)."""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qdformer.modeling.boxes import giou_loss, to_corners
from qdformer.modeling.clip_batch import Targets
from qdformer.modeling.mask_decoder import Predictions

# Above all that predictions cost before they diverge, and in double precision the digits of other
# costs are left when it is added to them.
_WORST_COST = 1e9


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """The lambdas of the segmentation loss; the matcher's costs carry the same ones.

    Attributes:
        classes: lambda_cls, focal loss of the classes.
        mask: lambda_focal, pixel loss of the masks (BCE or focal).
        dice: lambda_dice.
        l1: lambda_L1 of the boxes.
        giou: lambda_giou of the boxes.
        clips: of all these losses for what the tokens of clips predict, beside those of frames.
    """

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    clips: float = 0.25


class HungarianMatcher:
    """Minimises the weighted cost of Eq. 10, summed over the frames in which an object sounds."""

    def __init__(self, weights: LossWeights, focal_alpha: float, focal_gamma: float):
        """
        Args:
            weights: of the costs.
            focal_alpha: weight of the positive class in the focal loss.
            focal_gamma: focusing exponent of the focal loss.
        """
        self.weights = weights
        self.alpha, self.gamma = focal_alpha, focal_gamma

    @torch.no_grad()
    def __call__(
        self, predictions: Sequence[Predictions], targets: Targets, lengths: list[int]
    ) -> Tensor:
        """
        Args:
            predictions: of D layers, which add up to one cost where there are several.
            targets: objects of the B clips.
            lengths: frames of each clip.

        Returns:
            (D, F, M) int64 on the CPU: the token assigned to each object in each frame, the same
            one throughout a clip; -1 for padding and for objects beyond the N tokens. No token
            serves two objects of a clip.
        """
        # Only training matches, and nothing else waits for SciPy.
        from scipy.optimize import linear_sum_assignment

        cost = torch.stack([self.frame_costs(each, targets) for each in predictions]).sum(0)
        cost = cost.masked_fill(~targets.sounding[:, None], 0)
        # One transfer for all clips and layers: each would wait for the device.
        clips = [
            # (D, T, N, M) -> (D, N, M); what is not a number is as bad as can be.
            clip.sum(1).nan_to_num(_WORST_COST).clamp(-_WORST_COST, _WORST_COST).numpy()
            for clip in cost.double().cpu().split(lengths, dim=1)
        ]
        layers, _, tokens, objects = cost.shape
        assigned = torch.full((layers, len(clips), objects), -1)
        for clip, (costs, count) in enumerate(zip(clips, targets.counts)):
            for layer in range(layers):
                rows, columns = linear_sum_assignment(costs[layer, :, :count])
                assigned[layer, clip, columns] = torch.from_numpy(rows)
        frames = torch.repeat_interleave(torch.arange(len(clips)), torch.tensor(lengths))
        return assigned[:, frames]

    def frame_costs(self, predictions: Predictions, targets: Targets) -> Tensor:
        """The cost (D, F, N, M) of giving object m of a frame to token n, in that frame alone."""
        weights = self.weights
        masks, boxes = predictions.masks.flatten(-2), predictions.boxes
        return (
            weights.classes * self._class_cost(predictions.logits, targets.classes)
            + weights.mask * _mask_cost(masks, targets.masks.flatten(-2))
            + weights.dice * _dice_cost(masks, targets.masks.flatten(-2))
            + weights.l1 * (boxes[..., None, :] - targets.boxes[:, None]).abs().sum(-1)
            + weights.giou * _giou_cost(boxes, targets.boxes)
        )

    def _class_cost(self, logits: Tensor, classes: Tensor) -> Tensor:
        # What the focal loss changes by when the object's class becomes this token's target.
        probability = logits.sigmoid()
        positive = self.alpha * (1 - probability) ** self.gamma * F.softplus(-logits)
        negative = (1 - self.alpha) * probability**self.gamma * F.softplus(logits)
        index = classes[None, :, None].expand(*logits.shape[:3], -1)
        return (positive - negative).gather(-1, index)


def _mask_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean BCE over pixels of (D, F, N, P) logits with (F, M, P) masks: (D, F, N, M)."""
    positive, negative = F.softplus(-logits), F.softplus(logits)
    masks = masks.transpose(-1, -2)
    return (positive @ masks + negative @ (1 - masks)) / masks.shape[-2]


def _dice_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """The loss of :func:`qdformer.modeling.criterion.dice_loss` for all pairs: (D, F, N, M)."""
    probability = logits.sigmoid()
    overlap = probability @ masks.transpose(-1, -2)
    total = probability.sum(-1)[..., None] + masks.sum(-1)[:, None]
    return 1 - (2 * overlap + 1) / (total + 1)


def _giou_cost(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """1 - GIoU of (D, F, N, 4) with (F, M, 4): (D, F, N, M)."""
    return giou_loss(to_corners(boxes)[..., None, :], to_corners(target_boxes)[:, None])
