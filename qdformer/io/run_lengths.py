"""Masks as COCO writes them: run lengths, as numbers or compressed, and polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MAX_SIDE = 2**16
"""The greatest width or height of a mask."""


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Compressed run lengths of a mask (H, W), with ``counts`` as text that JSON takes."""
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [*mask.shape], "counts": runs["counts"].decode()}


def decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The pixels (H, W) bool of a segmentation.

    Args:
        segmentation: run lengths of ``size``, or a list of polygons ``[x, y, x, y, ...]``, at least
            one, each of which is at least partly in the frame.
        size: (H, W).

    Raises:
        ValueError, KeyError, TypeError, IndexError, OverflowError: it is none.
    """
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"its size is {segmentation['size']}")
        counts = segmentation["counts"]
        runs = _decompressed(counts) if isinstance(counts, (str, bytes)) else list(counts)
        # COCO counts down the columns, beginning with background.
        if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
            raise ValueError("its run lengths do not cover the frame")
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return values.reshape(size, order="F")
    polygons = [np.asarray(polygon, float) for polygon in segmentation]
    for corners in polygons:
        # Farther out than any frame is wide, pycocotools would follow the edges for hours.
        if len(corners) < 6 or len(corners) % 2 or not (np.abs(corners) < MAX_SIDE).all():
            raise ValueError("a polygon needs three corners or more, near the frame")
        x, y = corners.reshape(-1, 2).T
        if x.max() <= 0 or y.max() <= 0 or x.min() >= size[1] or y.min() >= size[0]:
            raise ValueError("a polygon lies outside the frame")
    if not polygons:
        raise ValueError("it is empty: a box alone says nothing of an object's pixels")
    runs = coco_mask.frPyObjects([corners.tolist() for corners in polygons], *size)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def _decompressed(text: str | bytes) -> list[int]:
    """The numbers of COCO's compressed run lengths: six bits a character, differences by two."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"there is no character {chr(character)!r} in compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("a number in compressed run lengths has no end")
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs
