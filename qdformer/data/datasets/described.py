"""A data set of one's own that a file beside its clips describes, without any Python.

``dataset.yaml`` (or ``.yml``, ``.json``) in the root says::

    classes: [dog, car]            # without background; the k-th has the label k in the masks
    splits:
      train: [clips/a, clips/b*]   # folders of clips, or patterns
      test: [clips/z]
    # The rest has these defaults, from the folder of a clip on.
    frames: frames/*.jpg           # one for each second, numbered without gaps by their names' ends
    masks: masks/*.png             # with the number of their frame; or a file of annotations
    sound: audio.wav
    label_format: index            # binary, index or palette; "binary" where there is one class
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.annotations.document import MAX_BYTES
from qdformer.annotations.formats import read_annotations
from qdformer.data.datasets.registration import register_avs_dataset
from qdformer.errors import InputError
from qdformer.io.image import LabelFormat
from qdformer.io.last_number import last_number
from qdformer.io.open_file import open_file

logger = logging.getLogger(__name__)

FILES = ("dataset.yaml", "dataset.yml", "dataset.json")
_DEFAULTS = {"frames": "frames/*.jpg", "masks": "masks/*.png", "sound": "audio.wav"}
_KEYS = {"classes", "splits", "label_format", *_DEFAULTS}
_FORMATS = tuple(known for known in get_args(LabelFormat) if known != "coco")  # a file tells it


# The last three are of tags with other values than they are for.
_MALFORMED = ValueError, RecursionError, yaml.YAMLError, TypeError, LookupError, AttributeError


class _StrictLoader(yaml.SafeLoader):
    """Refuses aliases, of which a few make a long text, and a key that is there twice."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("has an alias (*); write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        _unique([(self.construct_object(key, deep=True), None) for key, _ in node.value])
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of pairs that readers would drop some of where a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"has {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def register_described(prefix: str, root: str | Path) -> None:
    """Register ``<prefix>_<split>`` for each split of a root's description, if it has one.

    Clips are looked for when a split is loaded.

    Raises:
        InputError: the description cannot be used, or its names are taken by another root.
    """
    paths = [Path(root, name) for name in FILES if Path(root, name).is_file()]
    if not paths:
        return
    if len(paths) > 1:
        raise InputError(f"{' and '.join(map(str, paths))} both describe a data set; keep one")
    (path,) = paths
    described = _read(path)
    for split in described["splits"]:
        name = f"{prefix}_{split}"
        if name in DatasetCatalog.list():
            if MetadataCatalog.get(name).get("described_by") != str(path.resolve()):
                raise InputError(
                    f"{path}: the name {name} is taken; rename the folder or the split"
                )
            continue
        records = partial(_records, path, described, split)
        register_avs_dataset(name, records, described["classes"], described_by=str(path.resolve()))


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_file(path, "description", MAX_BYTES) as file:
            if path.suffix == ".json":
                content = json.load(file, object_pairs_hook=_unique)
            else:
                content = yaml.load(file, _StrictLoader)
    except _MALFORMED as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({told}); mend it") from error
    if not isinstance(content, dict) or not {"classes", "splits"} <= content.keys() <= _KEYS:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else repr(content)[:80]
        raise InputError(
            f"{path}: has {found}; give classes and splits, and of {', '.join(sorted(_KEYS))} what "
            "you like"
        )
    for key in _DEFAULTS.keys() & content.keys():
        _check_inside(path, key, content[key])
    if content.get("label_format", "index") not in _FORMATS:
        raise InputError(
            f"{path}: label_format is {content['label_format']!r}; known: {', '.join(_FORMATS)}"
        )
    splits = content["splits"]
    if not isinstance(splits, dict) or not splits:
        raise InputError(f"{path}: splits is {splits!r}; give each split its list of folders")
    for split, folders in splits.items():
        if isinstance(folders, str):
            splits[split] = folders = [folders]
        # YAML takes some words, such as on, for true.
        named = isinstance(split, str) and re.fullmatch(r"\w+", split)
        if not named or not isinstance(folders, list) or not folders:
            raise InputError(
                f"{path}: the split {split!r} is {folders!r}; give a list of folders to a name of "
                "letters and digits, in quotes where YAML takes it for something else"
            )
        for folder in folders:
            _check_inside(path, f"the split {split!r}", folder)
    return _DEFAULTS | content


def _check_inside(path: Path, key: str, value: Any) -> None:
    inside = isinstance(value, str) and value and not Path(value).is_absolute()
    if not inside or any(part == ".." or len(part) > 200 for part in Path(value).parts):
        raise InputError(
            f"{path}: {key} has {value!r}; give a path or pattern from {path.parent} on"
        )


def _records(path: Path, described: dict[str, Any], split: str) -> list[dict[str, Any]]:
    clips = _clips(path, described["splits"][split])
    for other in described["splits"].keys() - {split}:
        if shared := [clip for clip in _clips(path, described["splits"][other]) if clip in clips]:
            logger.warning(
                "%s: %d clips of %s are in %s, too, e.g. %s; what is trained on tells nothing when "
                "it is tested on.",
                path,
                len(shared),
                split,
                other,
                shared[0],
            )
    return [_record(path, described, clip) for clip in clips]


def _clips(path: Path, patterns: Sequence[str]) -> dict[Path, None]:
    """The folders of some clips, in order, each once."""
    clips: dict[Path, None] = {}
    for pattern in patterns:
        found = sorted(place for place in _fitting(path, path.parent, pattern) if place.is_dir())
        if not found:
            raise InputError(f"{path}: no folder fits {pattern!r}, seen from {path.parent}")
        clips |= dict.fromkeys(found)
    return clips


def _record(path: Path, described: dict[str, Any], clip: Path) -> dict[str, Any]:
    frames = _numbered(path, clip, described["frames"])
    # Sound and frame belong together by the frame's place.
    for one, following in pairwise(frames):
        if following != one + 1:
            raise InputError(
                f"{clip}: has no frame {one + 1} between {one} and {following}; give one for each "
                "second"
            )
    if not frames:
        raise InputError(f"{clip}: no file fits {described['frames']!r}, which {path} names")
    sound = clip / described["sound"]
    if not sound.is_file():
        raise InputError(f"{sound}: the sound of this clip is missing; {path} names it")
    record: dict[str, Any] = {
        "video_id": clip.relative_to(path.parent).as_posix(),
        "file_names": list(frames.values()),
        "audio_file_name": str(sound),
    }
    annotations = clip / described["masks"]
    if annotations.is_file():
        return record | _annotated(path, described, clip, annotations, frames)
    masks = _numbered(path, clip, described["masks"])
    if not frames.keys() & masks.keys():
        raise InputError(f"{clip}: no {described['masks']!r} has the number of a frame")
    if lost := masks.keys() - frames.keys():
        raise InputError(f"{masks[min(lost)]}: this mask has no frame of its number")
    record["sem_seg_file_names"] = [masks.get(number) for number in frames]
    if "label_format" in described:
        record["label_format"] = described["label_format"]
    return record


def _annotated(
    path: Path, described: dict[str, Any], clip: Path, file: Path, frames: dict[int, str]
) -> dict[str, Any]:
    annotations = read_annotations(file)
    if list(annotations.classes) != list(described["classes"]):
        raise InputError(
            f"{file}: has the classes {', '.join(annotations.classes)}, and {path} "
            f"{', '.join(map(str, described['classes']))}; give both the same in one order"
        )
    names = [Path(os.path.relpath(frame, clip)).as_posix() for frame in frames.values()]
    lost = annotations.frames.keys() - {*names}
    if lost or not annotations.frames:
        raise InputError(
            f"{file}: annotates {min(lost, default='nothing')}, which is no frame of {clip}; its "
            f"frames are called {names[0]}, ..."
        )
    found = [annotations.frames.get(name) for name in names]
    return {"sem_seg_file_names": found, "label_format": "coco"}


def _numbered(path: Path, folder: Path, pattern: str) -> dict[int, str]:
    """The files of a pattern by the last number in their names, in its order.

    Raises:
        InputError: a name has no number, or two have the same.
    """
    files: dict[int, str] = {}
    for file in _fitting(path, folder, pattern):
        number = last_number(file.stem)
        if number is None:
            raise InputError(f"{file}: has no number in its name, by which frames are put in order")
        if number in files:
            raise InputError(
                f"{file}: has the number of {files[number]}; frames have each their own"
            )
        files[number] = str(file)
    return dict(sorted(files.items()))


def _fitting(path: Path, folder: Path, pattern: str) -> list[Path]:
    try:
        return [*folder.glob(pattern)]
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: {pattern!r} is no pattern of files ({error})") from error
