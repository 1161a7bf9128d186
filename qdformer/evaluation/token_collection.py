"""Which class of the ground truth each audio token of a clip stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import Metadata
from torch import Tensor

from qdformer.io.image import read_label_map

# The network's masks have a cell for so many pixels of the padded frame along each side.
_MASK_STRIDE = 4


@dataclass(frozen=True)
class TokenMatches:
    """The confident tokens of a clip's annotated frames, P in all.

    Attributes:
        frames: (P,) int64, the frame of each: with ``tokens`` an index into everything (T, N, ...).
        tokens: (P,) int64, which of the N tokens it is.
        classes: (P,) int64, the label in the ground truth that its mask covers, 0 for none.
        local_codes: (P,) int64, the codeword of its frame's token; None without a codebook.
        global_codes: (P,) int64, the codeword of its clip's token; None without a codebook.
        sounding: for each of the T frames the labels in its ground truth in ascending order: none
            where nothing sounds or the frame is not annotated, several for a multi-source frame.
    """

    frames: np.ndarray
    tokens: np.ndarray
    classes: np.ndarray
    local_codes: np.ndarray | None
    global_codes: np.ndarray | None
    sounding: tuple[tuple[int, ...], ...]

    @property
    def multi_source(self) -> np.ndarray:
        """(P,) bool, whether several classes sound in the token's frame."""
        several = np.array([len(labels) > 1 for labels in self.sounding], bool)
        return several[self.frames]


def match_tokens(
    clip: Mapping[str, Any],
    output: Mapping[str, Any],
    metadata: Metadata,
    *,
    class_threshold: float = 0.1,
    mask_threshold: float = 0.5,
    min_iou: float = 0.5,
) -> TokenMatches:
    """Match each confident token to the class whose region its mask covers best.

    Tokens are matched one by one, so that several may stand for one class. Pixels that are marked
    as ignored are not counted.

    Args:
        clip: as the mapper gives it; read are ``image`` (its size), ``sem_seg_file_names`` and
            ``label_format``.
        output: what the model says of it, see
            :meth:`~qdformer.modeling.meta_arch.segmenter.AudioVisualSegmenter.inference`; read are
            ``scores``, ``classes``, ``masks`` and the codes.
        metadata: of the data set.
        class_threshold: a token is confident if its likeliest class is at least this probable.
        mask_threshold: a mask covers a pixel where its probability is above this.
        min_iou: the least overlap with a class, intersection over union.

    Returns:
        The tokens in order of time, and in each frame of their number.
    """
    known = output["classes"].lt(len(metadata.stuff_classes))
    confident = output["scores"].ge(class_threshold).logical_and(known).cpu().numpy()
    frames, tokens, classes, sounding = [], [], [], []
    for frame, name in enumerate(clip["sem_seg_file_names"]):
        labels = np.zeros(0, np.uint8)
        if name is not None:
            truth = read_label_map(name, clip["label_format"], metadata.get("stuff_colors"))
            ignored = truth == metadata.ignore_label
            labels = np.unique(truth[~ignored & (truth > 0)])
            chosen = np.flatnonzero(confident[frame])
            masks = _at_size(output["masks"][frame, chosen], clip["image"], truth.shape)
            covered = (masks > mask_threshold).numpy() & ~ignored
            frames += [frame] * len(chosen)
            tokens += chosen.tolist()
            classes += [_best_class(mask, truth, labels, min_iou) for mask in covered]
        sounding.append(tuple(labels.tolist()))
    where = np.array(frames, np.int64), np.array(tokens, np.int64)
    return TokenMatches(
        *where,
        classes=np.array(classes, np.int64),
        local_codes=_codes(output["local_codes"], where),
        global_codes=_codes(output["global_codes"], where),
        sounding=tuple(sounding),
    )


def _best_class(mask: np.ndarray, truth: np.ndarray, labels: np.ndarray, min_iou: float) -> int:
    best, best_iou = 0, 0.0
    for label in labels:
        region = truth == label
        iou = (mask & region).sum() / (mask | region).sum()
        if iou >= min_iou and iou > best_iou:
            best, best_iou = int(label), iou
    return best


def _at_size(masks: Tensor, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring masks (n, h, w) of a padded frame to (n, H, W) of the label map, without the padding.

    Logits are interpolated, as for the label maps that are evaluated.

    Args:
        masks: (n, h, w).
        image: (T, 3, height, width), the frames before they were padded.
        size: (H, W).
    """
    rows, columns = [
        2 * (pixels / (_MASK_STRIDE * cells)) * (torch.arange(length) + 0.5) / length - 1
        for pixels, cells, length in zip(image.shape[-2:], masks.shape[-2:], size)
    ]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack((x, y), dim=-1)[None]
    # One picture of one channel each, of which there may be none.
    grid = grid.expand(len(masks), -1, -1, -1)
    logits = masks.cpu().float().logit(1e-6)[:, None]
    logits = F.grid_sample(logits, grid, align_corners=False, padding_mode="border")
    return logits[:, 0].sigmoid()


def _codes(codes: Tensor | None, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
    return None if codes is None else codes.cpu().numpy()[where]
