"""L_segm: the losses of the matched tokens (Sec. 3.5)."""

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from qdformer.layers.clamp_finite import clamp_finite
from qdformer.modeling.boxes import giou_loss, to_corners
from qdformer.modeling.clip_batch import Targets
from qdformer.modeling.mask_decoder import Predictions
from qdformer.modeling.matcher import HungarianMatcher, LossWeights

PIXEL_LOSSES = ("bce", "focal")


class SegmentationCriterion:
    """Focal loss on classes, pixel loss and Dice on masks, L1 and GIoU on boxes.

    Masks and boxes count in the frames in which the assigned object sounds; classes in every
    annotated frame, so that a token without an object, or whose object is silent, learns the empty
    class. A clip's token stands for an object that sounds in any of its frames, and has its class
    in all of them, as far as the annotated frames tell. Everything is divided by the number of
    objects that sound, over all frames and processes.
    """

    def __init__(
        self,
        *,
        weights: LossWeights,
        pixel_loss: str = "bce",
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
    ):
        """
        Args:
            weights: of the losses and of the matcher's costs.
            pixel_loss: "bce" or "focal".
            focal_alpha: weight of the positives in the focal losses.
            focal_gamma: focusing exponent of the focal losses.
        """
        assert pixel_loss in PIXEL_LOSSES, f"pixel loss {pixel_loss!r} is not one of {PIXEL_LOSSES}"
        self.weights, self.pixel_loss = weights, pixel_loss
        self.alpha, self.gamma = focal_alpha, focal_gamma
        self.matcher = HungarianMatcher(weights, focal_alpha, focal_gamma)

    def __call__(
        self,
        predictions: Predictions,
        targets: Targets,
        lengths: list[int],
        clip_predictions: Predictions | None = None,
    ) -> dict[str, Tensor]:
        """
        Args:
            predictions: of D decoder layers, from the tokens of each frame.
            targets: objects of the B clips.
            lengths: frames of each clip.
            clip_predictions: of D decoder layers, from the tokens of each frame's clip.

        Returns:
            Weighted scalars ``loss_class``, ``loss_mask``, ``loss_dice``, ``loss_bbox`` and
            ``loss_giou``, averaged over the D layers, and the same of ``clip_predictions`` as
            ``loss_global_*``. A token of a clip and those of its frames share one assignment.
        """
        with torch.autocast(predictions.logits.device.type, enabled=False):
            # Sums over pixels leave the range of half precision.
            given = [predictions] if clip_predictions is None else [predictions, clip_predictions]
            local, *of_clips = [
                Predictions(**{k: v.float() for k, v in vars(each).items()}) for each in given
            ]
            assigned = self.matcher([local, *of_clips], targets, lengths)
            losses = self._losses(local, targets, assigned, targets.sounding, targets.annotated)
            for each in of_clips:
                named = self._losses(each, targets, assigned, *_of_clips(targets, lengths))
                losses |= {
                    name.replace("_", "_global_"): self.weights.clips * loss
                    for name, loss in named.items()
                }
            return losses

    def _losses(
        self,
        predictions: Predictions,
        targets: Targets,
        assigned: Tensor,
        present: Tensor,
        known: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of an assignment (D, F, M) of tokens to objects.

        The tokens have the classes of the objects that are ``present`` (F, M), in frames in which
        these are ``known`` (F,); masks and boxes count where an object sounds.
        """
        layer, frame, target, token = _pairs(targets.sounding, assigned)
        # D layers share the objects, so the sum over layers is divided by D as well.
        divisor = len(assigned) * _mean_over_processes(targets.sounding.sum()).clamp(min=1)

        masks = clamp_finite(predictions.masks[layer, frame, token].flatten(1))
        boxes = clamp_finite(predictions.boxes[layer, frame, token])
        target_masks = targets.masks[frame, target].flatten(1)
        target_boxes = targets.boxes[frame, target]
        losses = {
            "loss_class": self.weights.classes * self._class_loss(
                clamp_finite(predictions.logits), targets.classes, _pairs(present, assigned), known
            ),
            "loss_mask": self.weights.mask * self._pixel_loss(masks, target_masks).sum(),
            "loss_dice": self.weights.dice * dice_loss(masks, target_masks).sum(),
            "loss_bbox": self.weights.l1 * (boxes - target_boxes).abs().sum(),
            "loss_giou": self.weights.giou
            * giou_loss(to_corners(boxes), to_corners(target_boxes)).sum(),
        }  # fmt: skip
        return {name: loss / divisor for name, loss in losses.items()}

    def _class_loss(
        self, logits: Tensor, labels: Tensor, pairs: tuple[Tensor, ...], known: Tensor
    ) -> Tensor:
        layer, frame, target, token = pairs
        classes = torch.zeros_like(logits)
        classes[layer, frame, token, labels[frame, target]] = 1
        loss = sigmoid_focal_loss(logits, classes, alpha=self.alpha, gamma=self.gamma)
        return (loss * known[:, None, None]).sum()

    def _pixel_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """(P, pixels) logits and masks to one mean a pair, (P,)."""
        if self.pixel_loss == "focal":
            loss = sigmoid_focal_loss(logits, masks, alpha=self.alpha, gamma=self.gamma)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
        return loss.mean(-1)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice (Milletari et al., 2016) of (P, pixels) logits and masks in [0, 1]: (P,)."""
    probability = logits.sigmoid()
    overlap = (probability * masks).sum(-1)
    return 1 - (2 * overlap + 1) / (probability.sum(-1) + masks.sum(-1) + 1)


def _pairs(counted: Tensor, assigned: Tensor) -> tuple[Tensor, ...]:
    """Indices of layer, frame, object and token of the objects that count and have a token."""
    # On the CPU, where the matcher worked: it has just waited for the device.
    pairs = (counted.cpu() & (assigned >= 0)).nonzero(as_tuple=True)
    return tuple(index.to(counted.device, non_blocking=True) for index in (*pairs, assigned[pairs]))


def _of_clips(targets: Targets, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Which objects sound in their frame's clip (F, M), and in which frames that is known (F,).

    Where nothing sounds in the annotated frames of a clip, something may in those that are not.
    """
    present, known = [], []
    for sounding, annotated in zip(
        targets.sounding.split(lengths), targets.annotated.split(lengths)
    ):
        heard = sounding.any(0)
        present.append(heard.expand_as(sounding))
        known.append(annotated & (annotated.all() | heard.any()))
    return torch.cat(present), torch.cat(known)


def _mean_over_processes(count: Tensor) -> Tensor:
    count = count.float()
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(count)
    return count / comm.get_world_size()
