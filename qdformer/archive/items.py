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
        given: folders, taken with the folders in them (not with links to such), whose videos are
            named by their path from there; manifests (csv, jsonl or parquet) with a column
            ``video``, a path from the manifest's folder on, and maybe ``name``; WebDataset's shards
            (``*.tar``), whose videos are named ``<shard>/<member>``; videos; or patterns of any of
            these.

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
        return [_item(file.relative_to(path).as_posix(), file) for file in files]
    if path.suffix.lower() == ".tar":
        return _members(path)
    if path.suffix.lower() in MANIFESTS:
        return _listed(path)
    return [_item(path.name, path)]


def _item(name: str, path: Path, offset: int = 0, size: int | None = None) -> Item:
    # Names of files may hold bytes that are no text.
    name = name.encode(errors="backslashreplace").decode()
    return Item(name, os.path.abspath(path), offset, size)


def _members(path: Path) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if member.isdir() or Path(member.name).suffix.lower() not in SUFFIXES:
                    continue
                if not member.isfile() or member.issparse():
                    raise InputError(
                        f"{path}: its member {member.name} is a link or has holes; write shards of "
                        "whole files"
                    )
                yield _item(f"{path.name}/{member.name}", path, member.offset_data, member.size)
            end = shard.offset
        _check_end(path, end)
    except InputError:
        raise
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a shard ({error}); give a whole .tar") from (
            error
        )


def _check_end(path: Path, end: int) -> None:
    """An archive ends with zeros, where ``tarfile`` takes whatever it cannot read for the end."""
    with path.open("rb") as file:
        file.seek(end)
        rest, any_left = file.read(tarfile.BLOCKSIZE), False
        ended = len(rest) == tarfile.BLOCKSIZE
        while rest and not any_left:
            any_left = any(rest)
            rest = file.read(2**20)
    if any_left or not ended:
        raise InputError(
            f"{path}: is cut off, damaged or followed by another archive behind byte {end}; give "
            "whole shards, each as a file"
        )


def _listed(path: Path) -> Iterator[Item]:
    try:
        rows = list(_rows(path))
    except (OSError, ValueError, TypeError, RecursionError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read as a manifest ({error}); give csv with a header, jsonl with "
            "an object a line, or parquet"
        ) from error
    for number, row in enumerate(rows, start=1):
        video, name = row.get("video"), row.get("name")
        if not isinstance(video, str) or not video:
            raise InputError(
                f"{path}: row {number} has no video; give a column video with paths from the "
                "manifest's folder on"
            )
        if name and not isinstance(name, str):
            raise InputError(f"{path}: row {number} has the name {name!r}; give a text, or none")
        yield _item(name or video, path.parent / video)


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
        return csv.DictReader(io.StringIO(text), skipinitialspace=True)
    return [dict(json.loads(line)) for line in text.split("\n") if line.strip()]
