"""Data sets of clips by name: what each must say of itself, checked before a run starts."""

import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any, get_args

from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.data.datasets.classes import BACKGROUND
from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.io.image import IGNORE_LABEL, LabelFormat, read_size
from qdformer.io.palette import class_palette

RECORD_KEYS = {
    "video_id": "the clip's name, of no other clip",
    "file_names": "T paths of its frames",
    "sem_seg_file_names": "T paths of label maps, None where a frame is not annotated",
    "label_format": "how label maps are read: binary, index, palette or coco",
    "audio_file_name": "the path of its sound",
    "height": "of the frames, pixels",
    "width": "of the frames, pixels",
}
"""What each clip of a data set is described by; T is its number of frames."""

_PATH = str, os.PathLike
_KINDS: dict[str, type | tuple[type, ...]] = {
    "video_id": str,
    "file_names": (list, tuple),
    "sem_seg_file_names": (list, tuple),
    "audio_file_name": _PATH,
    "height": Integral,
    "width": Integral,
}


def register_avs_dataset(
    name: str,
    records: Sequence[dict[str, Any]] | Callable[[], Sequence[dict[str, Any]]],
    classes: Sequence[str],
    **metadata: Any,
) -> None:
    """Register a data set of one's own in Detectron2's catalogs, to train or test on.

    Args:
        name: a new one.
        records: one dict a clip with the keys of ``RECORD_KEYS``, or a function that makes them
            when they are needed. Only ``file_names``, ``sem_seg_file_names`` and
            ``audio_file_name`` have no default: others see :func:`with_defaults`.
        classes: names of the classes without background, which is 0 in the label maps; the k-th of
            them is k.
        metadata: more of it, see :func:`complete_metadata` for what is filled in.

    Raises:
        InputError: the name is taken, or two classes have one name.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"a data set is called {name!r}; give it a name")
    if name in DatasetCatalog.list():
        raise InputError(f"data set {name!r} is registered already; choose another name")
    ordered = isinstance(classes, (list, tuple))
    names = [BACKGROUND, *classes] if ordered else []
    texts = all(isinstance(text, str) and text for text in names)
    if not texts or len(set(names)) < len(names) or not 1 < len(names) < 256:
        raise InputError(
            f"data set {name!r} has the classes {str(classes)[:200]}; give a list of at least one "
            f"and at most 254 names, each once, without {BACKGROUND!r}, and in quotes where YAML "
            "takes one for something else than text"
        )
    MetadataCatalog.get(name).set(stuff_classes=names, **metadata)
    try:
        complete_metadata(name)
    except InputError:
        MetadataCatalog.remove(name)
        raise

    def load() -> list[dict[str, Any]]:
        given = records() if callable(records) else records
        if not isinstance(given, (list, tuple)) or not given:
            raise InputError(
                f"data set {name!r} has the records {str(given)[:80]}; give a list of dicts, one a "
                "clip"
            )
        return [with_defaults(name, record, index) for index, record in enumerate(given)]

    DatasetCatalog.register(name, load)


def with_defaults(name: str, record: dict[str, Any], index: int) -> dict[str, Any]:
    """A clip with what its data set does not say of it.

    ``video_id`` is the data set's name with a number, ``height`` and ``width`` are those of the
    first frame, and ``label_format`` is "index", or "binary" where there is a single class.

    Args:
        name: of the data set.
        record: the clip.
        index: its place in the data set.

    Raises:
        InputError: it is no dict, a key of ``RECORD_KEYS`` is misspelt, or its first frame cannot
            be read.
    """
    if not isinstance(record, dict):
        raise InputError(
            f"data set {name!r}: its clip {index} is {repr(record)[:80]}; give a dict with "
            f"{', '.join(RECORD_KEYS)}"
        )
    # Others are passed on, for a mapper of one's own.
    for key in map(str, record.keys() - RECORD_KEYS.keys()):
        if meant := get_close_matches(key, RECORD_KEYS, 1, 0.8):
            raise InputError(f"data set {name!r}: its clip {index} has {key!r}; write {meant[0]!r}")
    binary = len(MetadataCatalog.get(name).stuff_classes) == 2
    defaults: dict[str, Any] = {
        "video_id": f"{name}_{index:05d}",
        "label_format": "binary" if binary else "index",
    }
    frames = record.get("file_names")
    if not {"height", "width"} <= record.keys() and isinstance(frames, (list, tuple)) and frames:
        # Whatever else stands there is told when the records are checked.
        if isinstance(frames[0], _PATH):
            defaults["height"], defaults["width"] = read_size(os.fspath(frames[0]))
    return defaults | record


def complete_metadata(name: str) -> None:
    """Give a data set that names its classes whatever else its metadata leave open.

    Colors are AVSBench's palette, pixels of the label 255 are not counted, and the evaluator is
    that of AVS-Object for a single class and that of AVS-Semantic for more.

    Args:
        name: of a registered data set.

    Raises:
        InputError: ``stuff_classes`` is missing, or ``stuff_colors`` of another number.
    """
    metadata = MetadataCatalog.get(name)
    classes = metadata.get("stuff_classes", ())
    if len(classes) < 2:
        raise InputError(
            f"data set {name!r} has no classes to segment; its metadata must have stuff_classes, "
            "background first"
        )
    defaults = {
        "stuff_colors": [tuple(color) for color in class_palette(len(classes)).tolist()],
        "ignore_label": IGNORE_LABEL,
        "evaluator_type": "avs_object" if len(classes) == 2 else "avs_semantic",
    }
    metadata.set(**{key: value for key, value in defaults.items() if metadata.get(key) is None})
    if len(metadata.stuff_colors) != len(classes):
        raise InputError(
            f"data set {name!r} has {len(metadata.stuff_colors)} stuff_colors and {len(classes)} "
            "stuff_classes; give as many, or none for AVSBench's palette"
        )


def check_records(name: str, records: Iterable[dict[str, Any]]) -> None:
    """Refuse clips that are not described by all of ``RECORD_KEYS``.

    Args:
        name: of the data set.
        records: its clips.

    Raises:
        InputError: names the clip, the key and what it should be.
    """
    seen: set[str] = set()
    for index, record in enumerate(records):
        for key, meaning in RECORD_KEYS.items():
            if key not in record:
                raise InputError(
                    f"data set {name!r}: its clip {record.get('video_id', index)} has no {key} "
                    f"({meaning}); a clip has {', '.join(RECORD_KEYS)}"
                )
        for key, kinds in _KINDS.items():
            if not isinstance(record[key], kinds):
                raise InputError(
                    f"data set {name!r}: its clip {record['video_id']!r} has the {key} "
                    f"{str(record[key])[:80]!r}; it is {RECORD_KEYS[key]}"
                )
        if min(record["height"], record["width"]) < 1:
            raise InputError(
                f"data set {name!r}: its clip {record['video_id']} is {record['width']} x "
                f"{record['height']} pixels; give the size of its frames"
            )
        if record["video_id"] in seen:
            raise InputError(
                f"data set {name!r}: two clips have the video_id {record['video_id']!r}"
            )
        seen.add(record["video_id"])
        if record["label_format"] not in get_args(LabelFormat):
            raise InputError(
                f"data set {name!r}: its clip {record['video_id']} has the label_format "
                f"{record['label_format']!r}; known: {', '.join(get_args(LabelFormat))}"
            )
        frames, labels = len(record["file_names"]), len(record["sem_seg_file_names"])
        if not frames or labels != frames:
            raise InputError(
                f"data set {name!r}: its clip {record['video_id']} has {frames} file_names and "
                f"{labels} sem_seg_file_names; give as many, with None where a frame has no mask"
            )
        mask = (FrameAnnotation,) if record["label_format"] == "coco" else _PATH
        for key, kind in (("file_names", _PATH), ("sem_seg_file_names", (*mask, type(None)))):
            for item in record[key]:
                if not isinstance(item, kind):
                    raise InputError(
                        f"data set {name!r}: its clip {record['video_id']} has {str(item)[:80]!r} "
                        f"in {key}, of {record['label_format']}; it takes "
                        f"{' or '.join(known.__name__ for known in kind)}"
                    )
