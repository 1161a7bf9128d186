"""YouTube-VIS's JSON: objects are tracks, each with a segmentation or null for every frame."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from qdformer.annotations.coco import categories
from qdformer.annotations.document import Annotations, check_listed, numbered_labels, whole_number
from qdformer.io.atomic_write import write_json
from qdformer.io.frame_annotation import AnnotatedObject, FrameAnnotation
from qdformer.io.run_lengths import encode


def read(path: str, content: dict[str, Any]) -> Annotations:
    """The annotations of parsed JSON."""
    classes, labels = numbered_labels(content["categories"])
    tracks = defaultdict(list)
    for track in content["annotations"] or ():
        tracks[track["video_id"]].append(track)
        check_listed("category", [track["category_id"]], [*labels])
    check_listed("video", tracks, [video["id"] for video in content["videos"]])
    frames: dict[str, FrameAnnotation] = {}
    for video in content["videos"]:
        size, names = (int(video["height"]), int(video["width"])), video["file_names"]
        objects: list[list[AnnotatedObject]] = [[] for _ in names]
        for track in tracks[video["id"]]:
            masks = track["segmentations"]
            if len(masks) != len(names):
                raise ValueError(
                    f"an object of video {video['id']} has {len(masks)} segmentations, and the "
                    f"video {len(names)} frames"
                )
            for found, segmentation in zip(objects, masks):
                if segmentation is not None:
                    score = track.get("score")
                    found.append(
                        AnnotatedObject(
                            labels[track["category_id"]],
                            segmentation,
                            whole_number(track["id"]),
                            None if score is None else float(score),
                        )
                    )
        for name, found in zip(names, objects):
            if name in frames:
                raise ValueError(f"two frames have the name {name!r}")
            frames[name] = FrameAnnotation(path, name, size, tuple(found))
    return Annotations(classes, frames)


def write(annotations: Annotations, folder: Path) -> dict[str, str]:
    """Write ``instances.json``; see :func:`qdformer.annotations.formats.write_annotations`.

    Objects of a class that have no track become one, and what others cover is left out.

    Raises:
        ValueError: the frames of a video differ in size.
    """
    videos: list[dict[str, Any]] = []
    tracks: list[dict[str, Any]] = []
    for number, frames in enumerate(annotations.videos.values(), start=1):
        sizes = {frame.size for frame in frames.values()}
        if len(sizes) > 1:
            raise ValueError(f"frames of one video have the sizes {sorted(sizes)}")
        ((height, width),) = sizes
        videos.append({"id": number, "file_names": [*frames], "length": len(frames),
                       "height": height, "width": width})  # fmt: skip
        masks: dict[tuple[int, int | None], list[Any]] = {}
        scores = defaultdict(list)
        for t, frame in enumerate(frames.values()):
            # Tracks have one order for all frames, and pieces of one lie in different depths.
            for item, mask in zip(frame.objects, frame.seen()):
                key = item.label, item.track
                runs = masks.setdefault(key, [None] * len(frames))
                if runs[t] is not None:
                    mask |= coco_mask.decode(runs[t]).astype(bool)
                runs[t] = encode(mask)
                if item.score is not None:
                    scores[key].append(item.score)
        for (label, track), runs in masks.items():
            there = [None if run is None else (coco_mask.area(run), coco_mask.toBbox(run))
                     for run in runs]  # fmt: skip
            written = {
                "id": len(tracks) + 1,
                "video_id": number,
                "category_id": label,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": len(frames),
                "segmentations": runs,
                "areas": [item and int(item[0]) for item in there],
                "bboxes": [item and [float(value) for value in item[1]] for item in there],
            }
            if scores[label, track]:
                # Of a track, as results are submitted: the mean of its frames.
                written["score"] = sum(scores[label, track]) / len(scores[label, track])
            tracks.append(written)
    content = {"categories": categories(annotations), "videos": videos, "annotations": tracks}
    write_json(folder / "instances.json", content)
    return {name: f"JPEGImages/{name}" for name in annotations.frames}
