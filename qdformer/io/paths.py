"""Keeps what a data set reads inside of its folder."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from qdformer.errors import InputError


def ensure_within(folder: str | Path, path: str | Path) -> None:
    """Refuses a path that a symbolic link leads out of a folder; the folder itself may be a link.

    Args:
        folder: of a data set.
        path: a name below that folder, without ``..``; it need not exist. The folders above it are
            looked at once in a process.

    Raises:
        InputError: what is there lies elsewhere.
    """
    folder, path = os.fspath(folder), os.fspath(path)
    # To resolve every path would take half as long again as to list a data set.
    if os.path.islink(path) or not _has_no_link(folder, os.path.dirname(path)):
        ensure_link_within(folder, path)


def ensure_link_within(folder: str | Path, path: str | Path) -> None:
    """Like :func:`ensure_within`, for a path in which there is a link."""
    inside, target = os.path.realpath(folder), os.path.realpath(path)
    if os.path.commonpath([inside, target]) != inside:
        raise InputError(
            f"{path}: leads to {target}, out of the data set's folder {inside}; move it there, or "
            "link the folder as a whole"
        )


@lru_cache(maxsize=4096)
def _has_no_link(folder: str, directory: str) -> bool:
    if len(directory) <= len(folder):
        return True
    return not os.path.islink(directory) and _has_no_link(folder, os.path.dirname(directory))
