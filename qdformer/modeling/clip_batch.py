"""What the network takes: the frames of a batch of clips in one row, and their targets."""

import dataclasses

import torch
import torch.nn.functional as F
from detectron2.structures import ImageList
from torch import Tensor

from qdformer.layers.clip_padding import repeat_for_frames
from qdformer.layers.mask_sampling import MASK_STRIDE


@dataclasses.dataclass(frozen=True)
class ClipBatch:
    """The frames of B clips, one clip after the other.

    Attributes:
        images: (F, 3, H, W) normalized, padded on the right and at the bottom, channels last.
        log_mel: (F, 1, 96, 64).
        lengths: frames of each clip.
        valid: (F, 2) float on the CPU, the fraction of height and width that is not padding.
        separated: (S, F, 1, 96, 64) the log-mel of S separated sounds; None where there are none.
    """

    images: Tensor
    log_mel: Tensor
    lengths: list[int]
    valid: Tensor
    separated: Tensor | None = None

    @classmethod
    def collate(
        cls, clips: list[dict], mean: Tensor, std: Tensor, size_divisibility: int
    ) -> "ClipBatch":
        """Move mapper outputs to the device of ``mean``, normalize, pad and join them.

        Args:
            clips: dicts with ``image`` (T, 3, H, W) uint8, ``audio`` (T, 1, 96, 64) and, all or
                none, ``separated_audio`` (S, T, 1, 96, 64).
            mean: (3, 1, 1) pixel mean.
            std: (3, 1, 1) pixel standard deviation.
            size_divisibility: padded height and width are multiples of it.
        """
        device = mean.device
        lengths = [len(clip["image"]) for clip in clips]
        sizes = [tuple(clip["image"].shape[-2:]) for clip in clips]
        frames = [
            (clip["image"].to(device, non_blocking=True).float() - mean) / std for clip in clips
        ]
        images = ImageList.from_tensors(
            [frame for clip in frames for frame in clip], size_divisibility
        ).tensor
        separated = [
            clip["separated_audio"].to(device, non_blocking=True)
            for clip in clips
            if "separated_audio" in clip
        ]
        fractions = torch.tensor(sizes, dtype=torch.float32) / torch.tensor(images.shape[-2:])
        return cls(
            images=images.contiguous(memory_format=torch.channels_last),
            log_mel=torch.cat([clip["audio"].to(device, non_blocking=True) for clip in clips]),
            lengths=lengths,
            valid=repeat_for_frames(fractions, lengths),
            separated=torch.cat(separated, dim=1) if separated else None,
        )


@dataclasses.dataclass(frozen=True)
class Targets:
    """The objects of B clips, padded to M, the most that a clip of the batch has.

    Attributes:
        classes: (F, M) int64.
        masks: (F, M, h, w) float, the share of each stride-4 cell that the object covers.
        boxes: (F, M, 4) center x, y, width, height as fractions of the padded frame.
        sounding: (F, M) bool, the object is annotated and seen sounding in this frame.
        annotated: (F,) bool.
        counts: objects of each clip.
    """

    classes: Tensor
    masks: Tensor
    boxes: Tensor
    sounding: Tensor
    annotated: Tensor
    counts: list[int]

    @classmethod
    def collate(
        cls, clips: list[dict], batch: ClipBatch, background_class: int | None = None
    ) -> "Targets":
        """Bring the instances of mapper outputs to the frames of ``batch``.

        Args:
            clips: dicts with ``instances`` (T of them, the clip's objects in one order, an object
                that is silent in a frame having an empty mask) and ``annotated`` (T,) bool.
            batch: the collated clips.
            background_class: if given, what no object covers becomes an object of this class.
        """
        device, padded = batch.images.device, batch.images.shape[-2:]
        classes, masks = [], []
        for clip in clips:
            labels = torch.stack([frame.gt_classes for frame in clip["instances"]])
            labels = labels.to(device, non_blocking=True)
            pixels = torch.stack([frame.gt_masks.tensor for frame in clip["instances"]])
            pixels = pixels.to(device, non_blocking=True)
            if background_class is not None:
                labels = F.pad(labels, (0, 1), value=background_class)
                pixels = torch.cat((pixels, ~pixels.any(1, keepdim=True)), dim=1)
            classes.append(labels)
            masks.append(pixels)
        counts = [labels.shape[1] for labels in classes]
        annotated = torch.cat([clip["annotated"] for clip in clips])
        annotated = annotated.to(device, non_blocking=True)
        frame_masks = _pad_objects([F.pad(m, _to_size(m, padded)) for m in masks], max(counts))
        sounding = frame_masks.flatten(2).any(-1) & annotated[:, None]
        return cls(
            classes=_pad_objects(classes, max(counts)),
            masks=_cell_means(frame_masks.float()),
            boxes=_mask_boxes(frame_masks),
            sounding=sounding,
            annotated=annotated,
            counts=counts,
        )


def _to_size(masks: Tensor, size: torch.Size) -> tuple[int, int, int, int]:
    height, width = masks.shape[-2:]
    return (0, size[1] - width, 0, size[0] - height)


def _pad_objects(clips: list[Tensor], objects: int) -> Tensor:
    """Join (T, M_b, ...) tensors to (F, M, ...), with zeros behind a clip's last object."""
    padded = [clip.new_zeros((len(clip), objects, *clip.shape[2:])) for clip in clips]
    for target, clip in zip(padded, clips):
        target[:, : clip.shape[1]] = clip
    return torch.cat(padded)


def _cell_means(masks: Tensor) -> Tensor:
    """Average (F, M, H, W) over the cells of ``MASK_STRIDE``; unlike pooling, for M = 0 too."""
    height, width = (side // MASK_STRIDE for side in masks.shape[-2:])
    cells = masks.unflatten(-1, (width, MASK_STRIDE)).unflatten(-3, (height, MASK_STRIDE))
    return cells.mean(dim=(-1, -3))


def _mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of (F, M, H, W) masks, (F, M, 4) as fractions; zeros for an empty mask."""
    height, width = masks.shape[-2:]
    columns, rows = masks.any(-2).float(), masks.any(-1).float()
    x0, y0 = columns.argmax(-1), rows.argmax(-1)
    x1 = width - columns.flip(-1).argmax(-1)
    y1 = height - rows.flip(-1).argmax(-1)
    boxes = torch.stack(((x0 + x1) / (2 * width), (y0 + y1) / (2 * height),
                         (x1 - x0) / width, (y1 - y0) / height), dim=-1)  # fmt: skip
    return boxes * masks.flatten(2).any(-1, keepdim=True)
