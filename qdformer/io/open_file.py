"""Opens what comes from outside: ordinary files only, and none larger than its reader takes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from qdformer.errors import InputError

MAX_PIXELS = 2**26
"""The most pixels of a picture that is read, 8192 x 8192; takes up to 1 GB while it is."""

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # Windows has none


def open_file(path: str | Path, kind: str, max_bytes: int | None = None) -> BinaryIO:
    """Opens a file for reading, without waiting for another program to write to it.

    Args:
        path: of a file; folders, pipes, sockets and devices are refused.
        kind: what it is to be, for the messages: ``"image"``, ``"sound"``, ...
        max_bytes: the greatest size that is opened; None for any.

    Raises:
        InputError: there is no such file, it is no ordinary one, it may not be read or is too
            large.
    """
    try:
        # A pipe that nobody writes to would be waited for without O_NONBLOCK.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such {kind} file; check its path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be opened ({reason}); put a readable {kind} file in its place."
        ) from error
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise InputError(f"{path}: is a pipe or a device; put the {kind} file itself in its place.")
    if max_bytes is not None and status.st_size > max_bytes:
        file.close()
        raise InputError(
            f"{path}: holds {status.st_size:,} bytes, but {kind} files of up to {max_bytes:,} are "
            "read; make it smaller."
        )
    return file


def written_at(path: str | Path) -> int | None:
    """When a file was written, nanoseconds, so that caches know it again; None without one."""
    return os.stat(path).st_mtime_ns if os.path.isfile(path) else None
