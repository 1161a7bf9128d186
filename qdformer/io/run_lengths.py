"""Masks as run lengths or polygons in COCO's JSON, one file for many frames."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from qdformer.errors import InputError
from qdformer.io.open_file import MAX_PIXELS, open_file, written_at

BACKGROUND = "background"
"""What label 0 is called."""

MAX_BYTES = 2**30
MAX_SIDE = 2**16


@dataclass(frozen=True)
class FrameAnnotation:
    """The objects of one frame, which stand in a file with those of others.

    Attributes:
        path: of the file.
        frame: the frame's ``file_name`` in it.
        size: (H, W), pixels.
        objects: label (from 1) and ``segmentation`` of each, as COCO writes it: run lengths, as
            numbers or compressed, or polygons. Where they overlap the last one counts.
    """

    path: str
    frame: str
    size: tuple[int, int]
    objects: tuple[tuple[int, Any], ...]

    def __str__(self) -> str:
        return f"{self.path} ({self.frame})"

    def label_map(self) -> np.ndarray:
        """(H, W) uint8, 0 for background.

        Raises:
            InputError: a segmentation is not of this size, or no segmentation.
        """
        labels = np.zeros(self.size, np.uint8)
        for label, segmentation in self.objects:
            try:
                labels[_mask(segmentation, self.size)] = label
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise InputError(
                    f"{self}: the segmentation of an object cannot be read ({error}); give run "
                    f"lengths or polygons of {self.size[1]} x {self.size[0]} pixels"
                ) from error
        return labels


@lru_cache(maxsize=8)
def _read(path: str, written: int | None) -> tuple[tuple[str, ...], dict[str, FrameAnnotation]]:
    with open_file(path, "annotation", MAX_BYTES) as file:
        try:
            content = json.load(file)
            categories = sorted(content["categories"], key=lambda category: category["id"])
            labels = {category["id"]: k for k, category in enumerate(categories, start=1)}
            names = tuple(category["name"] for category in categories)
            _check_categories(names, len(labels))
            objects = defaultdict(list)
            for annotation in content["annotations"]:
                label = labels[annotation["category_id"]]
                objects[annotation["image_id"]].append((label, annotation["segmentation"]))
            frames = {
                image["file_name"]: FrameAnnotation(
                    path,
                    image["file_name"],
                    (int(image["height"]), int(image["width"])),
                    tuple(objects[image["id"]]),
                )
                for image in content["images"]
            }
            _check_frames(frames.values())
            return names, frames
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"{path}: is not COCO's JSON ({type(error).__name__}: {error}); it needs images, "
                "annotations with segmentation, and categories"
            ) from error


def _check_categories(names: tuple[Any, ...], ids: int) -> None:
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError("a category has no name")
    if len({*names, BACKGROUND}) <= len(names) or ids < len(names):
        raise ValueError(f"two categories have one name or id, or one is called {BACKGROUND!r}")
    if not 0 < len(names) < 255:
        raise ValueError(f"it has {len(names)} categories, and 1 to 254 are possible")


def _check_frames(frames: Iterable[FrameAnnotation]) -> None:
    for frame in frames:
        if not isinstance(frame.frame, str):
            raise ValueError(f"an image has the file_name {frame.frame!r}")
        height, width = frame.size
        if min(height, width) < 1 or max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
            raise ValueError(f"{frame.frame} is {width} x {height} pixels")


def read_annotations(path: str | Path) -> tuple[tuple[str, ...], dict[str, FrameAnnotation]]:
    """The categories of a file in the order of their ids, and its frames by ``file_name``.

    A file is parsed again when it has changed.

    Raises:
        InputError: it is missing or not COCO's JSON.
    """
    path = os.fspath(path)
    return _read(path, written_at(path))


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
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
    if not polygons:
        return np.zeros(size, bool)
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
