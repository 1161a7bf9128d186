"""What a file of many frames' annotations says of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qdformer.errors import InputError
from qdformer.io.open_file import MAX_PIXELS
from qdformer.io.run_lengths import MAX_SIDE, decode

BACKGROUND = "background"
"""What label 0 is called."""


MAX_OBJECTS = 254
"""Of a clip."""


class AnnotatedObject(NamedTuple):
    """One object of one frame.

    Attributes:
        label: of its class, from 1.
        segmentation: see :func:`qdformer.io.run_lengths.decode`.
        track: the same number in every frame that shows the object; None where the file does not
            tell objects of one class apart.
        score: how sure a method is of it, in [0, 1]; None for ground truth.
    """

    label: int
    segmentation: Any
    track: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class FrameAnnotation:
    """The objects of one frame, which stand in a file with those of others.

    Attributes:
        path: of the file.
        frame: the frame's name in it.
        size: (H, W), pixels.
        objects: where they overlap the last one counts.
    """

    path: str
    frame: str
    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: the size is none that a picture is read in.
        """
        height, width = self.size
        if min(height, width) < 1 or max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
            raise ValueError(f"{self.frame} is {width} x {height} pixels")

    def __str__(self) -> str:
        return f"{self.path} ({self.frame})"

    def label_map(self) -> np.ndarray:
        """(H, W) uint8, 0 for background.

        Raises:
            InputError: a segmentation is not of this size, or no segmentation.
        """
        labels = np.zeros(self.size, np.uint8)
        for item in self.objects:
            labels[self.mask(item)] = item.label
        return labels

    @property
    def has_tracks(self) -> bool:
        """Whether objects of one class are told apart, in this frame and from others."""
        return any(item.track is not None for item in self.objects)

    def object_map(self, numbers: dict[tuple[int, int], int]) -> np.ndarray:
        """(H, W) uint8, the number of the object that each pixel shows, 0 for background.

        Args:
            numbers: of the objects of a clip by label and track, -1 for none; new ones are added.

        Raises:
            InputError: see :meth:`label_map`; or a clip has more objects than can be numbered.
        """
        pixels = np.zeros(self.size, np.uint8)
        for item in self.objects:
            key = item.label, -1 if item.track is None else item.track
            number = numbers.setdefault(key, len(numbers) + 1)
            if number > MAX_OBJECTS:
                raise InputError(f"{self}: its clip has more than {MAX_OBJECTS} objects")
            pixels[self.mask(item)] = number
        return pixels

    def seen(self) -> list[np.ndarray]:
        """(H, W) bool for each object, its pixels without those that others cover.

        Raises:
            InputError: see :meth:`label_map`.
        """
        masks = [self.mask(item) for item in self.objects]
        covered = np.zeros(self.size, bool)
        for mask in reversed(masks):
            mask &= ~covered
            covered |= mask
        return masks

    def mask(self, item: AnnotatedObject) -> np.ndarray:
        """(H, W) bool, the pixels of one of the objects.

        Raises:
            InputError: see :meth:`label_map`.
        """
        try:
            return decode(item.segmentation, self.size)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(
                f"{self}: the segmentation of an object cannot be read ({error}); give run lengths "
                f"or polygons of {self.size[1]} x {self.size[0]} pixels"
            ) from error
