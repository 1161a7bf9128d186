"""The videos of an archive: of folders, of manifests and of WebDataset's shards."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from qdformer.errors import InputError
from qdformer.video.media_source import SUFFIXES

MANIFESTS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Item:
    """A video of an archive.

    Attributes:
        name: its own in the archive, and the same in every call.
        path: of its file, or of the shard that it lies in.
        offset, size: its bytes in the shard; 0 and None for a file of its own.
    """

    name: str
    path: str
    offset: int = 0
    size: int | None = None

    def open(self) -> str | BinaryIO:
        """What :class:`~qdformer.video.reader.VideoFile` takes."""
        if self.size is None:
            return self.path
        with open(self.path, "rb") as shard:
            shard.seek(self.offset)
            return io.BytesIO(shard.read(self.size))


def find_items(given: Sequence[str]) -> list[Item]:
    """The videos that the user means.

    Args:
        given: folders, taken with the folders in them, whose videos are named by their path from
            there; manifests (csv, jsonl or parquet) with a column ``video``, a path from the
            manifest's folder on, and maybe ``name``; WebDataset's shards (``*.tar``), whose videos
            are named ``<shard>/<member>``; videos; or patterns of any of these.

    Returns:
        In the order given, within a folder and a pattern by name.

    Raises:
        InputError: there are none, two have one name, or a manifest or shard cannot be read.
    """
    items = [item for text in given for path in _matches(text) for item in _items(path)]
    seen: set[str] = set()
    for item in items:
        if item.name in seen:
            raise InputError(
                f"{item.path}: a second video is called {item.name}; names are what tells the rows "
                "of the tables apart, so give each its own (column name of a manifest)"
            )
        seen.add(item.name)
    if not items:
        raise InputError(f"{', '.join(given)}: no videos ({', '.join(SUFFIXES)})")
    return items


def _matches(text: str) -> list[Path]:
    if os.path.exists(text):
        return [Path(text)]
    found = sorted(map(Path, glob.glob(text, recursive=True)))
    if not found:
        raise InputError(f"{text}: no such file, folder or pattern that fits one")
    return found


def _items(path: Path) -> Iterable[Item]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        return [Item(file.relative_to(path).as_posix(), str(file)) for file in files]
    if path.suffix == ".tar":
        return _members(path)
    if path.suffix in MANIFESTS:
        return _listed(path)
    return [Item(path.name, str(path))]


def _members(path: Path) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                    name = f"{path.name}/{member.name}"
                    yield Item(name, str(path), member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a shard ({error}); give a whole .tar") from (
            error
        )


def _listed(path: Path) -> Iterator[Item]:
    try:
        rows = list(_rows(path))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read as a manifest ({error}); give csv with a header, jsonl with "
            "an object a line, or parquet"
        ) from error
    for number, row in enumerate(rows, start=1):
        video = row.get("video")
        if not isinstance(video, str) or not video:
            raise InputError(
                f"{path}: row {number} has no video; give a column video with paths from the "
                "manifest's folder on"
            )
        yield Item(str(row.get("name") or video), str(path.parent / video))


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return csv.DictReader(io.StringIO(text))
    return [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
