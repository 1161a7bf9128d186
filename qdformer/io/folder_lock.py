"""One process at a time that writes in a folder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from qdformer.errors import InputError

_NAME = ".lock"


def lock_folder(folder: str | Path) -> IO[str]:
    """Keep a folder for this process, and sweep what an ended one left half written.

    Args:
        folder: with results.

    Returns:
        A file that holds the lock for as long as it is open; the system lets go of it with the
        process, however that ends.

    Raises:
        InputError: another process writes there, or nobody can.
    """
    path = Path(folder, _NAME)
    try:
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another output folder"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        process = file.read().strip() or "unknown"
        raise InputError(
            f"{folder}: process {process} writes there; wait for its end or choose another output "
            "folder"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    for partial in Path(folder).glob(".*.part"):
        partial.unlink(missing_ok=True)
    return file
