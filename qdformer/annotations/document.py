"""The annotations of one or several videos, whatever the format of their file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from qdformer.errors import InputError
from qdformer.io.frame_annotation import BACKGROUND, FrameAnnotation
from qdformer.io.last_number import last_number

MAX_BYTES = 2**30
"""The greatest file of annotations that is read."""

MAX_CLASSES = 254

# Control characters and halves of characters, which XML and file systems do not take.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_LONGEST_PART = 200  # bytes of a folder's or file's name, of 255, as suffixes may be added


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


def checked(annotations: Annotations) -> Annotations:
    """Annotations that can be used.

    Raises:
        ValueError: two classes have one name, or a frame's is none of a file.
    """
    names = annotations.classes
    for name in names:
        if not isinstance(name, str) or not name or _UNWRITABLE.search(name):
            raise ValueError(f"a category has the name {name!r}")
    if len({*names, BACKGROUND}) <= len(names):
        raise ValueError(f"two categories have one name, or one is called {BACKGROUND!r}")
    if not 0 < len(names) <= MAX_CLASSES:
        raise ValueError(f"it has {len(names)} categories, and 1 to {MAX_CLASSES} are possible")
    for name in annotations.frames:
        if not isinstance(name, str) or not _names_a_file(name):
            raise ValueError(f"an image has the file_name {str(name)[:80]!r}")
    return annotations


def _names_a_file(name: str) -> bool:
    if _UNWRITABLE.search(name) or PurePosixPath(name).name in ("", ".."):
        return False
    return all(len(part.encode()) <= _LONGEST_PART for part in PurePosixPath(name).parts)


def frame_number(path: str | Path, name: str) -> int:
    """The last number in a frame's name.

    Raises:
        InputError: it has none.
    """
    number = last_number(PurePosixPath(bare_name(name)).name)
    if number is None:
        raise InputError(
            f"{path}: its image {name} has no number in its name; the last one is taken for that "
            "of the frame, from 0 on"
        )
    return number


BARE = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Suffixes of pictures; whatever else follows a dot belongs to a frame's name."""


def bare_name(name: str) -> str:
    """A frame's name without the suffix of its picture."""
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in BARE else path)


def whole_number(value: Any) -> int:
    """A track's number.

    Raises:
        ValueError, TypeError: it is no integer.
    """
    if int(value) != float(value):
        raise ValueError(f"a track has the number {value!r}")
    return int(value)


def check_listed(kind: str, used: Iterable[Any], listed: Sequence[Any]) -> None:
    """Refuse objects of images, videos or categories that a file does not list once.

    Args:
        kind: "image", ...
        used: the ids that its objects have.
        listed: the ids that there are.

    Raises:
        ValueError: names one that is not listed, or is listed twice.
    """
    twice = next((key for key, number in Counter(listed).items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{kind} {twice!r} is listed twice")
    if lost := {*used} - {*listed}:
        raise ValueError(f"an object is of {kind} {min(lost, key=str)!r}, which is not listed")


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
