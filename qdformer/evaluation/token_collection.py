"""Which class of the ground truth each audio token of a clip stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import Metadata
from torch import Tensor

from qdformer.io.image import read_label_map
from qdformer.layers.mask_sampling import masks_at_size

# The network's masks have a cell for so many pixels of the padded frame along each side.


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
            masks = masks_at_size(
                output["masks"][frame, chosen], clip["image"].shape[-2:], truth.shape
            )
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


def _codes(codes: Tensor | None, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
    return None if codes is None else codes.cpu().numpy()[where]
