"""Which format a file of annotations has, and in which it is to be written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from qdformer.annotations import coco, cvat, mask_folder, youtube_vis
from qdformer.annotations.document import BARE, MAX_BYTES, Annotations, bare_name, checked
from qdformer.errors import InputError, make_folder
from qdformer.io.open_file import open_file, written_at

WRITERS: dict[str, Callable[[Annotations, Path], dict[str, str]]] = {
    "coco": coco.write,
    "youtube-vis": youtube_vis.write,
    "cvat": cvat.write,
    "davis": mask_folder.write,
}
"""By format. A writer makes files in a folder, and says where in it each frame's picture goes."""

# LookupError: a key or an encoding that there is not.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def read_annotations(path: str | Path) -> Annotations:
    """Read annotations in any of the formats.

    A file is parsed again when it has changed.

    Args:
        path: COCO's or YouTube-VIS's JSON, CVAT's XML (of images or videos), or a folder of masks,
            see :func:`qdformer.annotations.mask_folder.read`.

    Raises:
        InputError: it is missing, or in none of them.
    """
    if Path(path).is_dir():
        try:
            return checked(mask_folder.read(Path(path)))
        except InputError:
            raise
        except _MALFORMED as error:
            raise InputError(
                f"{path}: the meta.json or label2idx.json that tells what its masks are cannot be "
                f"used ({_told(error)}); see the formats in docs/GETTING_STARTED.md"
            ) from error
    path = os.fspath(path)
    return _read(path, written_at(path))


@lru_cache(maxsize=8)
def _read(path: str, written: int | None) -> Annotations:
    kind = "CVAT's XML" if Path(path).suffix.lower() == ".xml" else "COCO's or YouTube-VIS's JSON"
    with open_file(path, "annotation", MAX_BYTES) as file:
        try:
            if kind == "CVAT's XML":
                return checked(cvat.read(path, file))
            content: Any = json.load(file)
            # COCO's files may list videos beside their images.
            parse = coco.read if "images" in content else youtube_vis.read
            return checked(parse(path, content))
        except InputError:
            raise
        except _MALFORMED as error:
            raise InputError(
                f"{path}: is not {kind} ({_told(error)}); see the formats in "
                "docs/GETTING_STARTED.md"
            ) from error


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return f"{type(error).__name__}: {error}"


def write_annotations(
    annotations: Annotations,
    format: str,
    output: str | Path,
    pictures: Mapping[str, Path] | None = None,
) -> int:
    """Write annotations, and the pictures that they belong to, in one of ``WRITERS``' formats.

    Args:
        annotations: of one or several videos.
        format: "coco" (``annotations.json``), "youtube-vis" (``instances.json`` and
            ``JPEGImages/``), "cvat" (``annotations.xml`` and ``images/``, which CVAT imports as
            "CVAT for images 1.1" when they are zipped) or "davis".
        output: a folder, which is made.
        pictures: files by the frames' names, to be copied to where the format has them.

    Returns:
        How many pictures were copied.

    Raises:
        InputError: there is no such format, or it cannot hold the annotations.
    """
    if format not in WRITERS:
        raise InputError(f"the format is {format!r}; give one of {', '.join(WRITERS)}")
    for name in annotations.frames:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise InputError(f"a frame is called {name!r}, which would lead out of {output}")
    output = Path(output)
    make_folder(output, f"the output folder {output}")
    try:
        places = WRITERS[format](checked(annotations), output)
        return _copy(pictures or {}, places, output)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{output}: {format} cannot hold these annotations ({error})") from error
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error}); give a new folder") from error


def _copy(pictures: Mapping[str, Path], places: Mapping[str, str], output: Path) -> int:
    for name, source in pictures.items():
        target = output / places[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.exists() and source.samefile(target)):
            shutil.copyfile(source, target)
    return len(pictures)


def find_pictures(annotations: Annotations, source: str | Path) -> dict[str, Path]:
    """The pictures of frames that lie where the formats have them, by the frames' names.

    Args:
        annotations: of ``source``.
        source: the file or folder of the annotations; pictures are looked for beside the file or in
            the folder, by their names or with another suffix.
    """
    base = Path(source) if Path(source).is_dir() else Path(source).parent
    places = [base, *(base / name for name in ("images", "JPEGImages", "JPEGImages/480p"))]
    # Of a folder within DAVIS's Annotations.
    places.append(Path(*("JPEGImages" if part == "Annotations" else part for part in base.parts)))
    found = {}
    for name, frame in annotations.frames.items():
        names = (name, *(with_picture_suffix(name, suffix) for suffix in (*BARE, ".JPG", ".PNG")))
        files = (place / candidate for place in places for candidate in names)
        # A mask that is a file of its own is not the picture.
        picture = next((file for file in files if file.is_file() and str(file) != frame.path), None)
        if picture is not None:
            found[name] = picture
    return found


def with_picture_suffix(name: str, suffix: str) -> str:
    """A frame's name with another suffix; what follows a dot and is none belongs to the name."""
    return f"{bare_name(name)}{suffix}"
