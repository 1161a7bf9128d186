"""Folders of pngs whose pixels are numbers of objects, as DAVIS and YouTube-VOS have them."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from qdformer.annotations.document import MAX_BYTES, Annotations, bare_name
from qdformer.errors import InputError
from qdformer.io.atomic_write import write_json
from qdformer.io.frame_annotation import BACKGROUND, AnnotatedObject, FrameAnnotation
from qdformer.io.image import IGNORE_LABEL, read_label_map
from qdformer.io.last_number import last_number
from qdformer.io.open_file import open_file
from qdformer.io.palette import class_palette
from qdformer.io.run_lengths import encode


def read(folder: Path) -> Annotations:
    """The annotations of all pngs under a folder, one folder a video.

    Where the folder holds one called ``Annotations``, only what is in that counts. A ``meta.json``
    or ``label2idx.json`` in the folder or above it says what a pixel stands for: YouTube-VOS's the
    category of each video's objects by their number, AVSBench's the class of each number. 255 is
    void, and is background here.

    Raises:
        InputError: there is neither, no png, one has a number that is not told, or two are of one
            frame.
    """
    masks = folder / "Annotations"
    masks = masks if masks.is_dir() else folder
    files = sorted(path for path in masks.rglob("*") if path.suffix.lower() == ".png")
    if not files:
        raise InputError(f"{folder}: holds no png; give the folder of one or several videos' masks")
    places = [place / name for place in (folder, *folder.parents[:3])
              for name in ("meta.json", "label2idx.json")]  # fmt: skip
    meta = next(filter(Path.is_file, places), None)
    if meta is None:
        raise InputError(
            f"{folder}: neither in it nor above is a meta.json (YouTube-VOS's, the category of "
            "each object) or label2idx.json (the number of each class); add one"
        )
    with open_file(meta, "annotation", MAX_BYTES) as opened:
        content = json.load(opened)
    classes = _classes(content)
    labels: dict[str, dict[int, int]] = {}
    frames: dict[str, FrameAnnotation] = {}
    for file in files:
        video = _video(file.parent, content)
        if video not in labels:
            labels[video] = _labels(meta, content, classes, video)
        name = str(PurePosixPath("" if file.parent == folder else video, file.name))
        if name in frames:
            raise InputError(
                f"{file}: is of the frame {name}, and so is {frames[name].path}; give the folder "
                "of one of the two"
            )
        frames[name] = _frame(meta, file, name, labels[video])
    return Annotations(classes, frames)


def _frame(meta: Path, file: Path, name: str, labels: dict[int, int]) -> FrameAnnotation:
    pixels = read_label_map(file, "index")
    objects = []
    for number in np.unique(pixels).tolist():
        if number in (0, IGNORE_LABEL):
            continue
        if number not in labels:
            raise InputError(
                f"{file}: has an object {number}, of which {meta} does not tell the class"
            )
        objects.append(AnnotatedObject(labels[number], encode(pixels == number), number))
    return FrameAnnotation(str(file), name, pixels.shape, tuple(objects))


def _video(folder: Path, content: Any) -> str:
    """The name of the video whose masks lie in a folder; it may itself have folders in it."""
    parts = folder.resolve().parts
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((tail for tail in tails if tail in content.get("videos", ())), folder.name)


def _classes(content: Any) -> tuple[str, ...]:
    if "videos" not in content:
        numbers = {name: int(number) for name, number in content.items()}
        if len({*numbers.values()}) < len(numbers):
            raise ValueError("two classes have one number")
        if 0 in (numbers[name] for name in numbers if name != BACKGROUND):
            raise ValueError(f"the number 0 is not {BACKGROUND!r}")
        return tuple(name for name in sorted(numbers, key=numbers.__getitem__)
                     if name != BACKGROUND)  # fmt: skip
    if "categories" in content:
        return tuple(content["categories"])
    objects = (video["objects"].values() for video in content["videos"].values())
    return tuple(sorted({item["category"] for group in objects for item in group}))


def _labels(meta: Path, content: Any, classes: tuple[str, ...], video: str) -> dict[int, int]:
    """The label of each number in a video's pngs."""
    if "videos" not in content:
        return {int(content[name]): label for label, name in enumerate(classes, start=1)}
    if video not in content["videos"]:
        raise InputError(f"{meta}: does not tell what the objects of the video {video!r} are")
    objects = content["videos"][video]["objects"]
    return {int(number): classes.index(item["category"]) + 1 for number, item in objects.items()}


def write(annotations: Annotations, folder: Path) -> dict[str, str]:
    """Write DAVIS's folders and YouTube-VOS's ``meta.json``.

    See :func:`qdformer.annotations.formats.write_annotations`. Frames are called by their numbers.
    Objects of a class that have no track get one number.

    Raises:
        InputError: the folder holds masks already, which would be taken for these videos'.
        ValueError: a frame lies in no video's folder, or has no number, or that of another one.
    """
    if (folder / "Annotations").exists():
        raise InputError(f"{folder / 'Annotations'}: exists already; give a new folder")
    if "" in annotations.videos:
        raise ValueError("some frames lie in no folder of their video's name")
    try:
        return _write(annotations, folder)
    except Exception:
        shutil.rmtree(folder / "Annotations", ignore_errors=True)
        raise


def _write(annotations: Annotations, folder: Path) -> dict[str, str]:
    places: dict[str, str] = {}
    videos: dict[str, Any] = {}
    for video, frames in annotations.videos.items():
        numbers: dict[tuple[int, int | None], int] = {}
        shown = defaultdict(list)
        stems = _stems(frames)
        for name, frame in frames.items():
            stem = stems[name]
            places[name] = f"JPEGImages/480p/{video}/{stem}{PurePosixPath(name).suffix}"
            pixels = np.zeros(frame.size, np.uint8)
            for item in frame.objects:
                number = numbers.setdefault((item.label, item.track), len(numbers) + 1)
                if number == IGNORE_LABEL:
                    raise ValueError(f"{video} has more than {IGNORE_LABEL - 1} objects")
                pixels[frame.mask(item)] = number
                shown[number].append(stem)
            image = Image.fromarray(pixels, mode="P")
            image.putpalette(class_palette(256).tobytes())
            target = folder / "Annotations" / "480p" / video / f"{stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target)
        videos[video] = {
            "objects": {
                str(number): {"category": annotations.classes[label - 1], "frames": shown[number]}
                for (label, _), number in numbers.items()
            }
        }
    write_json(folder / "meta.json", {"videos": videos, "categories": [*annotations.classes]})
    lists = folder / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "val.txt").write_text("".join(f"{video}\n" for video in videos), encoding="utf-8")
    return places


def _stems(frames: Iterable[str]) -> dict[str, str]:
    """The number in each frame's name, with five digits as other readers expect."""
    numbers = {name: last_number(PurePosixPath(bare_name(name)).name) for name in frames}
    if None in numbers.values() or len({*numbers.values()}) < len(numbers):
        raise ValueError("frames of a video have no number in their names, or two the same")
    return {name: f"{number:05d}" for name, number in numbers.items()}
