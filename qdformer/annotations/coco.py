"""COCO's JSON: one list of images, one of objects. Label tools write it, and ``demo.py``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from qdformer.annotations.document import Annotations, check_listed, numbered_labels, whole_number
from qdformer.io.atomic_write import write_json
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation
from qdformer.io.run_lengths import encode


def read(path: str, content: dict[str, Any]) -> Annotations:
    """The annotations of parsed JSON; an object's ``track_id`` is its track, as CVAT writes it."""
    classes, labels = numbered_labels(content["categories"])
    objects = defaultdict(list)
    check_listed("category", (item["category_id"] for item in content["annotations"]), [*labels])
    for item in content["annotations"]:
        track = item.get("track_id", (item.get("attributes") or {}).get("track_id"))
        score = item.get("score")
        objects[item["image_id"]].append(
            AnnotatedObject(
                labels[item["category_id"]],
                item["segmentation"],
                None if track is None else whole_number(track),
                None if score is None else float(score),
            )
        )
    frames, spans = {}, {}
    check_listed("image", objects, [image["id"] for image in content["images"]])
    for image in content["images"]:
        name, size = image["file_name"], (int(image["height"]), int(image["width"]))
        if name in frames:
            raise ValueError(f"two images have the file_name {name!r}")
        frames[name] = FrameAnnotation(path, name, size, tuple(objects[image["id"]]))
        if "begin" in image or "end" in image:
            spans[name] = float(image["begin"]), float(image["end"])
    return Annotations(classes, frames, spans)


def write(annotations: Annotations, folder: Path) -> dict[str, str]:
    """Write ``annotations.json``; see :func:`qdformer.annotations.formats.write_annotations`."""
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, (name, frame) in enumerate(annotations.frames.items(), start=1):
        height, width = frame.size
        image = {"id": number, "file_name": name, "height": height, "width": width}
        if name in annotations.spans:
            image |= dict(zip(("begin", "end"), annotations.spans[name]))
        images.append(image)
        for item in frame.objects:
            written = coco_object(len(objects) + 1, number, item.label, frame.mask(item))
            known = {"track_id": item.track, "score": item.score}
            objects.append(written | {k: v for k, v in known.items() if v is not None})
    content = {"categories": categories(annotations), "images": images, "annotations": objects}
    write_json(folder / "annotations.json", content)
    return {name: name for name in annotations.frames}


def coco_object(number: int, image: int, label: int, mask: np.ndarray) -> dict[str, Any]:
    """COCO's annotation of an object.

    Args:
        number: its id.
        image: the id of its image.
        label: of its class, from 1.
        mask: (H, W) bool.
    """
    runs = encode(mask)
    return {
        "id": number,
        "image_id": image,
        "category_id": label,
        "segmentation": runs,
        "area": int(coco_mask.area(runs)),
        "bbox": [float(value) for value in coco_mask.toBbox(runs)],
        "iscrowd": 0,
    }


def categories(annotations: Annotations) -> list[dict[str, Any]]:
    """COCO's categories of the classes."""
    return [{"id": label, "name": name} for label, name in enumerate(annotations.classes, start=1)]
