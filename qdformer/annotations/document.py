"""The annotations of one or several videos, whatever the format of their file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from qdformer.errors import InputError
from qdformer.io.frame_annotation import BACKGROUND, FrameAnnotation
from qdformer.io.last_number import last_number
from qdformer.io.open_file import MAX_PIXELS
from qdformer.io.run_lengths import MAX_SIDE

MAX_BYTES = 2**30
"""The greatest file of annotations that is read."""

MAX_CLASSES = 254


@dataclass(frozen=True)
class Annotations:
    """What a file, or a folder, says of the frames of videos.

    Attributes:
        classes: names without background; the k-th, from 1, has the label k.
        frames: by name. A name in a folder belongs to the video that the folder is called after.
        spans: first and last second that a frame stands for, of the frames that say so.
    """

    classes: tuple[str, ...]
    frames: Mapping[str, FrameAnnotation]
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def videos(self) -> dict[str, dict[str, FrameAnnotation]]:
        """The frames by their folder, "" for those in none."""
        found: dict[str, dict[str, FrameAnnotation]] = defaultdict(dict)
        for name, frame in self.frames.items():
            folder = str(PurePosixPath(name).parent)
            found["" if folder == "." else folder][name] = frame
        return dict(found)

    def renamed(self, names: Mapping[str, str]) -> Annotations:
        """The same with other names for all of the frames."""
        frames = {
            names[old]: replace(frame, frame=names[old]) for old, frame in self.frames.items()
        }
        spans = {names[old]: span for old, span in self.spans.items()}
        return Annotations(self.classes, frames, spans)


def checked(path: str | Path, annotations: Annotations) -> Annotations:
    """Annotations that can be used.

    Raises:
        ValueError: two classes have one name, or a frame no size.
    """
    names = annotations.classes
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError("a category has no name")
    if len({*names, BACKGROUND}) <= len(names):
        raise ValueError(f"two categories have one name, or one is called {BACKGROUND!r}")
    if not 0 < len(names) <= MAX_CLASSES:
        raise ValueError(f"it has {len(names)} categories, and 1 to {MAX_CLASSES} are possible")
    for name, frame in annotations.frames.items():
        if not isinstance(name, str):
            raise ValueError(f"an image has the file_name {name!r}")
        height, width = frame.size
        if min(height, width) < 1 or max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
            raise ValueError(f"{name} is {width} x {height} pixels")
    return annotations


def frame_number(path: str | Path, name: str) -> int:
    """The last number in a frame's name.

    Raises:
        InputError: it has none.
    """
    number = last_number(PurePosixPath(name).stem)
    if number is None:
        raise InputError(
            f"{path}: its image {name} has no number in its name; the last one is taken for that "
            "of the frame, from 0 on"
        )
    return number


def numbered_labels(categories: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], dict]:
    """Names in the order of COCO's category ids, and the label of each id.

    Raises:
        ValueError: two categories have one id.
    """
    ordered = sorted(categories, key=lambda category: category["id"])
    labels = {category["id"]: label for label, category in enumerate(ordered, start=1)}
    if len(labels) < len(ordered):
        raise ValueError("two categories have one id")
    return tuple(category["name"] for category in ordered), labels
