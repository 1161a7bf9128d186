"""Folders of pngs whose pixels are numbers of objects, as DAVIS and YouTube-VOS have them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from qdformer.annotations.document import Annotations
from qdformer.errors import InputError
from qdformer.io.atomic_write import write_json
from qdformer.io.frame_annotation import BACKGROUND, AnnotatedObject, FrameAnnotation
from qdformer.io.image import IGNORE_LABEL, read_label_map
from qdformer.io.palette import class_palette
from qdformer.io.run_lengths import encode


def read(folder: Path) -> Annotations:
    """The annotations of all pngs under a folder, one folder a video.

    What a pixel stands for says a ``meta.json`` or a ``label2idx.json`` in the folder or above it:
    YouTube-VOS's, the category of each video's objects by their number; or AVSBench's, the class of
    each number. 255 is void, and is background here.

    Raises:
        InputError: there is neither, no png, or one has a number that is not told.
    """
    files = sorted(folder.rglob("*.png"))
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
    content = json.loads(meta.read_bytes())
    classes = _classes(content)
    frames = {}
    for file in files:
        video = "" if file.parent == folder else file.parent.name
        labels = _labels(meta, content, classes, video or folder.name)
        name = str(PurePosixPath(video, file.name))
        pixels = read_label_map(file, "index")
        objects = []
        for number in np.unique(pixels).tolist():
            if number in (0, IGNORE_LABEL):
                continue
            if number not in labels:
                raise InputError(
                    f"{file}: has an object {number}, of which {meta} does not tell the class"
                )
            runs = encode(pixels == number)
            objects.append(AnnotatedObject(labels[number], runs, number))
        frames[name] = FrameAnnotation(str(file), name, pixels.shape, tuple(objects))
    return Annotations(classes, frames)


def _classes(content: Any) -> tuple[str, ...]:
    if "videos" not in content:
        names = sorted(content, key=lambda name: int(content[name]))
        return tuple(name for name in names if name != BACKGROUND)
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

    See :func:`qdformer.annotations.formats.write_annotations`. Objects of a class that have no
    track get one number.
    """
    places: dict[str, str] = {}
    videos: dict[str, Any] = {}
    for video, frames in annotations.videos.items():
        numbers: dict[tuple[int, int | None], int] = {}
        shown = defaultdict(list)
        for t, (name, frame) in enumerate(frames.items()):
            stem = f"{t:05d}"
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
