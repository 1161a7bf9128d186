"""Which videos a path, a folder or a pattern means."""

import glob
import logging
from pathlib import Path

from qdformer.errors import InputError
from qdformer.video.media_source import SUFFIXES

logger = logging.getLogger(__name__)


def find_videos(given: str) -> list[Path]:
    """The videos that the user means, in the order of their names.

    Args:
        given: a file of any name; a folder, whose files with one of ``SUFFIXES`` are taken; or a
            pattern such as ``clips/*.mp4`` (``**`` for folders in folders).

    Raises:
        InputError: there are none.
    """
    path = Path(given)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(f"{given}: no videos in this folder ({', '.join(SUFFIXES)})")
        others = sorted(set(path.iterdir()) - set(found))
        if others:
            names = ", ".join(other.name for other in others[:5])
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            logger.warning("%s: passed over are %s%s; name them to take them.", path, names, more)
        return found
    # A name may look like a pattern.
    if path.exists():
        return [path]
    found = sorted(Path(name) for name in glob.glob(given, recursive=True) if Path(name).is_file())
    if not found:
        raise InputError(f"{given}: no such file, folder or pattern that fits a file; give a video")
    return found
