"""CVAT's XML 1.1, of images and of videos."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from qdformer.annotations.document import Annotations
from qdformer.errors import InputError
from qdformer.io.atomic_write import atomic_write
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation
from qdformer.io.run_lengths import encode

_Shape = tuple[str, str, int | None, int, ET.Element]

_MOST_FRAMES = 250_000  # more than an hour of 60 a second
_VIDEO_FRAME = "frame_{:06d}"  # how CVAT names the frames of a video


def read(path: str, file: BinaryIO) -> Annotations:
    """The annotations of an export "CVAT for images 1.1" or "CVAT for video 1.1".

    All frames of a video's task count as annotated; those without a shape are silent.

    Raises:
        InputError: a shape is neither a polygon nor a mask.
        ValueError: the file is no such XML.
    """
    try:
        root = ET.parse(file).getroot()
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    if root.tag != "annotations":
        raise ValueError(f"its outermost element is {root.tag}")
    shapes = [*_shapes(path, root)]
    listed = [item.findtext("name", "") for item in root.iterfind("./meta//labels/label")]
    classes = tuple(listed or sorted({label for _, label, *_ in shapes}))
    frames: dict[str, FrameAnnotation] = {}
    for name, size in _frames(root):
        if name in frames:
            raise ValueError(f"two images have the name {name!r}")
        frames[name] = FrameAnnotation(path, name, size, ())
    objects = defaultdict(list)
    # What lies above others comes later, as it does in FrameAnnotation.
    for name, label, track, _, shape in sorted(shapes, key=lambda shape: shape[3]):
        if name not in frames:
            raise ValueError(f"a shape is in {name}, which is none of its frames")
        if label not in classes:
            raise ValueError(f"a shape has the label {label!r}, which is none of its labels")
        segmentation = _segmentation(shape, frames[name].size)
        objects[name].append(AnnotatedObject(classes.index(label) + 1, segmentation, track))
    return Annotations(
        classes,
        {
            name: FrameAnnotation(path, name, frame.size, tuple(objects[name]))
            for name, frame in frames.items()
        },
    )


def _frames(root: ET.Element) -> list[tuple[str, tuple[int, int]]]:
    """Name and (H, W) of each frame."""
    images, size = root.findall("image"), root.find("./meta//original_size")
    if images or (size is None and root.find("track") is None):
        return [(image.attrib["name"], _size(image.attrib)) for image in images]
    task = next((node for node in root.iter() if node.find("stop_frame") is not None), None)
    if size is None or task is None:
        raise ValueError("it does not say the size and frames of its video (original_size, ...)")
    step = re.search(r"step=(\d+)", task.findtext("frame_filter") or "")
    first, last = int(task.findtext("start_frame", "0")), int(task.findtext("stop_frame", "0"))
    numbers = range(first, last + 1, int(step[1]) if step else 1)
    if len(numbers) > _MOST_FRAMES:
        raise ValueError(f"its task has {len(numbers):,} frames, more than {_MOST_FRAMES:,}")
    known = {"height": size.findtext("height", ""), "width": size.findtext("width", "")}
    return [(_VIDEO_FRAME.format(number), _size(known)) for number in numbers]


def _size(attributes: dict[str, str]) -> tuple[int, int]:
    return int(attributes["height"]), int(attributes["width"])


def _shapes(path: str, root: ET.Element) -> Iterator[_Shape]:
    """Frame, label, track, z order and element of every shape that is seen."""
    for image in root.iterfind("image"):
        for shape in image:
            _check(path, shape)
            group = shape.get("group_id")
            number = int(group) if group and group != "0" else None
            yield image.attrib["name"], shape.attrib["label"], number, _above(shape), shape
    for track in root.iterfind("track"):
        for shape in track:
            _check(path, shape)
            if shape.get("outside", "0") == "0":
                frame = _VIDEO_FRAME.format(int(shape.attrib["frame"]))
                label, number = track.attrib["label"], int(track.attrib["id"])
                yield frame, label, number, _above(shape), shape


def _above(shape: ET.Element) -> int:
    return int(shape.get("z_order", "0"))


def _check(path: str, shape: ET.Element) -> None:
    if shape.tag not in ("polygon", "mask"):
        raise InputError(
            f"{path}: has a {shape.tag}, which says nothing of an object's pixels; draw polygons "
            "or masks"
        )


def _segmentation(shape: ET.Element, size: tuple[int, int]):
    if shape.tag == "polygon":
        return [[float(v) for v in re.split("[,;]", shape.attrib["points"])]]
    left, top, width, height = (int(shape.attrib[k]) for k in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"the rle of a mask does not cover its {width} x {height} pixels")
    if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask leaves its frame of {size[1]} x {size[0]} pixels")
    mask = np.zeros(size, bool)
    # Along the rows of the box, beginning with background.
    box = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = box
    return encode(mask)


def write(annotations: Annotations, folder: Path) -> dict[str, str]:
    """Write ``annotations.xml``, of images; see :func:`~.formats.write_annotations`.

    Masks and not tracks: of a track of masks CVAT takes the first one only. An object's track is
    its ``group_id``.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for name in annotations.classes:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
    groups: dict[int, str] = {}  # from 1 on: 0 is none
    for number, (name, frame) in enumerate(annotations.frames.items()):
        height, width = frame.size
        image = ET.SubElement(root, "image", id=str(number), name=name, width=str(width),
                              height=str(height))  # fmt: skip
        for above, item in enumerate(frame.objects):
            mask = frame.mask(item)
            if not mask.any():
                continue
            shape = _mask_element(mask)
            known = {"label": annotations.classes[item.label - 1], "source": "file",
                     "occluded": "0", "z_order": str(above)}  # fmt: skip
            if item.track is not None:
                known["group_id"] = groups.setdefault(item.track, str(len(groups) + 1))
            image.append(ET.Element("mask", known | shape))
    ET.indent(root)
    with atomic_write(folder / "annotations.xml") as partial:
        ET.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
    return {name: f"images/{name}" for name in annotations.frames}


def _mask_element(mask: np.ndarray) -> dict[str, str]:
    (top, bottom), (left, right) = (
        np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0)
    )
    box = mask[top : bottom + 1, left : right + 1].reshape(-1)
    runs = [len([*run]) for _, run in groupby(box.tolist())]
    if box[0]:
        runs.insert(0, 0)
    return {
        "rle": ", ".join(map(str, runs)),
        "left": str(left),
        "top": str(top),
        "width": str(right - left + 1),
        "height": str(bottom - top + 1),
    }
