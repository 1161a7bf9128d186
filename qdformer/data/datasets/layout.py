"""Where the clips of a data set lie, read off a table of path templates."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdformer.annotations.formats import read_annotations
from qdformer.data.datasets.classes import BACKGROUND, read_classes
from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.io.image import LabelFormat

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
"""AVSBench's, and those of synthetic clips."""

Mask = str | FrameAnnotation


@dataclass(frozen=True)
class Layout:
    """Where one data set keeps what; ``{name}``, ``{split}``, ... stand for the fields of a clip.

    Reading, checking and writing a data set, and registering it, ask nothing else.

    Attributes:
        name: the layout's name, and the ``subset`` of its clips where the list does not give one.
        folders: names of the data set's folder under the root; the first that exists is taken, and
            the first one is written.
        table: csv file of the clips, or one file of annotations for each split, as
            ``{split}.json``, of whose videos each is a clip.
        header: its columns. One that a file does not name is taken by its position here.
        columns: the column of each field of a clip; ``name`` and ``split`` are needed.
        frames: the frames of a clip; ``{index}`` is a frame's number, or ``{frame}`` the name that
            its annotations give it.
        masks: the masks and their format, without ``{index}`` for "coco", whose frames are named
            from the data set's folder on, or as ``{frame}``. The first that a clip has are taken.
        sounds: the sound of a clip. The first that exists is taken, and the first one is written.
        evaluator_type: the evaluator, as Detectron2's data sets name theirs in the metadata.
        class_list: file of the class names and indices, or COCO's annotations; None where every
            object is of one class.
        splits: the splits, of which the first one is trained on.
        published: the number of clips in each split, as published; empty if it is not known.
        single_source: the subsets whose clips have one source, and whose training clips have a mask
            for their first frame only.
        first_index: the number of a clip's first frame.
        constant: its sources sound in every second.
        row: the line in the list of a synthetic clip, from its name, its split, the classes that
            sound in it and T; None if the composer does not write this layout.
    """

    name: str
    folders: tuple[str, ...]
    table: str
    frames: str
    masks: tuple[tuple[str, LabelFormat], ...]
    sounds: tuple[str, ...]
    evaluator_type: str
    header: tuple[str, ...] = ("name", "split")
    columns: Mapping[str, str] = field(default_factory=lambda: {"name": "name", "split": "split"})
    class_list: str | None = None
    splits: tuple[str, ...] = SPLITS
    published: tuple[int, ...] = ()
    single_source: tuple[str, ...] = ()
    first_index: int = 0
    constant: bool = False
    row: Callable[[str, str, list[str], int], dict[str, object]] | None = None


def find_folder(root: str | Path, layout: Layout) -> Path:
    """The data set's folder under the root.

    Raises:
        InputError: the root or the folder does not exist.
    """
    if not Path(root).is_dir():
        raise InputError(
            f"{root}: no such folder; set DETECTRON2_DATASETS to the folder that holds the data "
            "sets, see datasets/README.md."
        )
    for name in layout.folders:
        if Path(root, name).is_dir():
            return Path(root, name)
    raise InputError(
        f"{root}: holds no folder {' or '.join(layout.folders)}; put the data set there as "
        "datasets/README.md shows, or set DETECTRON2_DATASETS to where it is."
    )


def read_table(folder: str | Path, layout: Layout) -> list[dict[str, str]]:
    """Reads the list of clips of all splits.

    Args:
        folder: what :func:`find_folder` found.
        layout: where the list lies and what its columns mean.

    Returns:
        For each clip the fields that the paths of its layout are made of, its ``split``, its
        ``subset`` and its ``video_id``: the name, with split and folder in front where several
        clips have the same name. A clip that is listed twice counts once.

    Raises:
        InputError: the list is missing, is no csv file, lacks a column or a field, or has one
            twice; or a field would lead out of the folder.
    """
    path = Path(folder, layout.table)
    clips = list(_annotated(folder, layout) if "{split}" in layout.table else _listed(path, layout))
    unique = list({tuple(clip.items()): clip for clip in clips}.values())
    if len(unique) < len(clips):
        logger.warning("%s lists %d clips again.", path, len(clips) - len(unique))
    names = Counter(clip["name"] for clip in unique)
    for clip in unique:
        parts = [clip["name"]]
        if names[clip["name"]] > 1:
            parts = [clip["split"], clip.get("category", clip["subset"]), *parts]
        clip["video_id"] = "_".join(parts)
    for name, number in Counter(clip["video_id"] for clip in unique).items():
        if number > 1:
            raise InputError(
                f"{path}: {number} clips would have the name {name!r}, made of their split, folder "
                "and name; rename all but one."
            )
    return unique


def _listed(path: Path, layout: Layout) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: the list of clips is missing; restore it.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return list(_parse(path, layout, csv.reader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a csv file ({error}); restore it.") from error


def _annotated(folder: str | Path, layout: Layout) -> Iterator[dict[str, str]]:
    """A clip for each video of the files of annotations that are there."""
    for split in layout.splits:
        path = Path(folder, layout.table.format(split=split))
        if path.is_file():
            for video in read_annotations(path).videos:
                check_field(f"{path}", "video", video)
                yield {"subset": layout.name, "name": video, "split": split}


def _parse(path: Path, layout: Layout, rows: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    header = [title.strip() for title in next(rows, [])]
    places = {
        name: (header if title in header else layout.header).index(title)
        for name, title in layout.columns.items()
    }
    found = [header.count(title) for title in layout.columns.values()]
    headless = max(places.values()) >= len(header) or header[places["split"]] in layout.splits
    if headless or max(found) > 1:
        titles = ", ".join(layout.columns.values())
        raise InputError(
            f"{path}: the first line must name the columns {titles}, each once; found "
            f"{', '.join(header)[:200]!r}."
        )
    for number, row in enumerate(rows, start=2):
        if not any(map(str.strip, row)):
            continue
        fields = {name: row[place].strip() for name, place in places.items() if place < len(row)}
        if len(fields) < len(places):
            raise InputError(
                f"{path}, line {number}: found {len(row)} columns where the first line has "
                f"{len(header)}; restore the line."
            )
        for field_name, value in fields.items():
            check_field(f"{path}, line {number}", field_name, value)
        yield {"subset": layout.name, **fields}


def check_field(place: str, name: str, value: str) -> None:
    """Refuse a field of a list that, as part of a path, would lead out of the data set.

    Args:
        place: where the field stands, for the message.
        name: of the field.
        value: what it is.

    Raises:
        InputError: it is no plain file name.
    """
    plain = value.isprintable() and Path(value).name == value and len(value) < 256
    if not plain or value in ("", ".."):
        raise InputError(
            f"{place}: {name} {value[:80]!r} must be a plain file name, without folders."
        )


def clip_record(folder: str | Path, layout: Layout, clip: Mapping[str, str]) -> dict[str, Any]:
    """Finds the files of a clip, without opening them.

    Args:
        folder: what :func:`find_folder` found.
        layout: where the files lie.
        clip: an element of what :func:`read_table` returns.

    Returns:
        The record of :func:`~qdformer.data.datasets.avsbench.load_avs`, without ``height`` and
        ``width``.

    Raises:
        InputError: frames, all masks or the sound are missing.
    """
    frames = find_frames(folder, layout, clip)
    pattern = os.path.join(folder, layout.frames.format(**clip, index="<number>", frame="<name>"))
    if not frames:
        raise InputError(f"{pattern}: no frames of this clip are there; restore them.")
    # Frame and sound are paired by their place, so a gap would pair all that follows wrongly.
    first, last = min(frames), max(frames)
    if last - first >= len(frames):
        gap = next(number for number in range(first, last) if number not in frames)
        raise InputError(f"{pattern}: frame {gap} of this clip is missing; restore it.")

    masks, label_format = _find_masks(folder, layout, clip, frames)
    sounds = [os.path.join(folder, template.format(**clip)) for template in layout.sounds]
    sound = next(filter(os.path.isfile, sounds), None)
    if sound is None:
        raise InputError(f"{' or '.join(sounds)}: the sound of this clip is missing; restore it.")
    return {
        "file_names": list(frames.values()),
        "audio_file_name": sound,
        "sem_seg_file_names": [masks.get(index) for index in frames],
        "label_format": label_format,
        "video_id": clip["video_id"],
        "subset": clip["subset"],
    }


def find_frames(folder: str | Path, layout: Layout, clip: Mapping[str, str]) -> dict[int, str]:
    """Paths of a clip's frames by their number; those that annotations name count from 0.

    Raises:
        InputError: the annotations cannot be read, a frame that they name is missing, or its name
            leads out of the data set.
    """
    if "{frame}" not in layout.frames:
        return numbered_files(folder, layout.frames, clip)
    path = Path(folder, layout.table.format(**clip))
    frames = {}
    for index, name in enumerate(read_annotations(path).videos.get(clip["name"], ())):
        for part in Path(name).parts:
            check_field(f"{path}", "file_name", part)
        place = os.path.join(folder, layout.frames.format(**clip, frame=name))
        if not os.path.isfile(place):
            raise InputError(f"{place}: this frame, which {path} names, is missing; restore it.")
        frames[index] = place
    return frames


def _find_masks(
    folder: str | Path, layout: Layout, clip: Mapping[str, str], frames: Mapping[int, str]
) -> tuple[Mapping[int, Mask], LabelFormat]:
    for template, label_format in layout.masks:
        masks = find_masks(folder, layout, template, label_format, clip, frames)
        if frames.keys() & masks.keys():
            return masks, label_format
    paths = [os.path.join(folder, t.format(**clip, index=min(frames))) for t, _ in layout.masks]
    raise InputError(f"{' or '.join(paths)}: no frame of this clip has a mask; restore them.")


def find_masks(
    folder: str | Path,
    layout: Layout,
    template: str,
    label_format: LabelFormat,
    clip: Mapping[str, str],
    frames: Mapping[int, str],
) -> Mapping[int, Mask]:
    """The masks of one format that a clip has, by the number of their frame.

    Raises:
        InputError: a file of annotations is broken, or has other categories than the data set.
    """
    if label_format != "coco":
        return numbered_files(folder, template, clip)
    path = os.path.join(folder, template.format(**clip))
    annotations = read_annotations(path)
    names = annotations.classes
    if layout.class_list:
        classes = read_classes(Path(folder, layout.class_list))
        if (BACKGROUND, *names) != classes:
            raise InputError(
                f"{path}: has the categories {', '.join(names)[:200]}, and {layout.class_list} the "
                f"classes {', '.join(classes[1:])[:200]}; give both the same in the order of ids"
            )
    base = Path(folder)
    if "{frame}" in layout.frames:
        base = base / layout.frames.partition("{frame}")[0].format(**clip)
    places = {index: Path(frame).relative_to(base).as_posix() for index, frame in frames.items()}
    return {
        index: annotations.frames[name]
        for index, name in places.items()
        if name in annotations.frames
    }


def numbered_files(folder: str | Path, template: str, clip: Mapping[str, str]) -> dict[int, str]:
    """Paths of the files that fit a template of :class:`Layout`, by their number, in its order.

    Anything else in the folder is passed over; a folder that is not there has no files.
    """
    start, suffix = template.format(**clip, index="\0").split("\0")
    directory, prefix = os.path.split(os.path.join(folder, start))
    files = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                number = name[len(prefix) : len(name) - len(suffix)]
                if name.startswith(prefix) and name.endswith(suffix) and number.isdecimal():
                    files[int(number)] = entry.path
    except OSError:
        return {}
    return dict(sorted(files.items()))
