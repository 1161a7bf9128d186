"""The 71 classes of AVSBench-semantic, and the colors that stand for class indices."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from qdformer.annotations.formats import read_annotations
from qdformer.errors import InputError
from qdformer.io.frame_annotation import BACKGROUND
from qdformer.io.open_file import written_at

_NAMES = """
background accordion airplane axe baby bassoon bell bird boat boy bus car cat cello clarinet
clipper clock dog donkey drum duck elephant emergency-car erhu flute frying-food girl goose
guitar gun guzheng hair-dryer handpan harmonica harp helicopter hen horse keyboard leopard
lion man marimba missile-rocket motorcycle mower parrot piano pig pipa saw saxophone sheep
sitar sorna squirrel tabla tank tiger tractor train trombone truck trumpet tuba ukulele utv
vacuum-cleaner violin wolf woman
"""
# The order is that of the released label2idx.json: a name's place is its index.
AVSS_CLASSES = tuple(_NAMES.split())


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Reads a ``label2idx.json``, an object of class names and indices, or COCO's categories.

    A file is parsed again when it has changed.

    Returns:
        the names in the order of their indices; the first is the background.

    Raises:
        InputError: the file is missing or no JSON, or its indices are not 0 (background), 1, 2, ...
    """
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no such file; it must give every class name its index, background 0."
        )
    return _read_classes(os.fspath(path), written_at(path))


@lru_cache(maxsize=8)
def _read_classes(path: str, written: int | None) -> tuple[str, ...]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        indices = json.loads(text, object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); restore the file.") from error
    if isinstance(indices, dict) and isinstance(indices.get("categories"), list):
        return (BACKGROUND, *read_annotations(path).classes)
    if (
        not isinstance(indices, dict)
        or not all(type(index) in (int, str) for index in indices.values())
        or sorted(map(str, indices.values())) != sorted(map(str, range(len(indices))))
        or indices.get(BACKGROUND) != 0
        or len(indices) > 255
    ):
        raise InputError(
            f"{path}: must be an object that numbers at most 255 class names 0, 1, 2, ... with "
            f'"{BACKGROUND}" as 0; found {text[:80]!r}.'
        )
    return tuple(sorted(indices, key=lambda name: int(indices[name])))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)[:80]!r} is there twice")
    return dict(pairs)
