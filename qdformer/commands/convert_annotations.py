"""Bring annotations of videos to another format, with the pictures that they belong to.

convert_annotations.py output/demo/video.mp4/annotations.json output/cvat --format cvat
convert_annotations.py output/cvat/annotations.xml output/vis --format youtube-vis

Read are COCO's and YouTube-VIS's JSON, CVAT's XML of images and videos, and folders of masks like
DAVIS's and YouTube-VOS's; the formats that are written are in qdformer/annotations/formats.py.
CVAT takes a zip of the folder as "CVAT for images 1.1".
"""

import argparse
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from qdformer.annotations.document import Annotations
from qdformer.annotations.formats import (
    WRITERS,
    find_pictures,
    read_annotations,
    with_picture_suffix,
    write_annotations,
)
from qdformer.commands import runner
from qdformer.errors import InputError


def _run(args: argparse.Namespace) -> None:
    """Read, write, and say what was written."""
    source = Path(args.annotations)
    annotations = read_annotations(source)
    if not annotations.frames:
        raise InputError(f"{source}: lists no frames; give the annotations of at least one")
    pictures = find_pictures(annotations, source)
    names = _names(annotations, pictures, args.video or source.resolve().parent.name)
    files = {names[name]: path for name, path in pictures.items()}
    copied = write_annotations(annotations.renamed(names), args.format, args.output, files)
    objects = sum(len(frame.objects) for frame in annotations.frames.values())
    print(f"{args.output}: {objects} objects in {len(names)} frames, with {copied} pictures")


def _names(annotations: Annotations, pictures: Mapping[str, Path], video: str) -> dict[str, str]:
    """Names of frames with their picture's suffix, in a folder that is called after their video."""
    nameless = {*annotations.videos} <= {"", "frames"}
    names: dict[str, str] = {}
    for old in annotations.frames:
        name = str(PurePosixPath(video, PurePosixPath(old).name)) if nameless else old
        if old in pictures:
            name = with_picture_suffix(name, pictures[old].suffix)
        names[old] = name
    for name, number in Counter(names.values()).items():
        if number > 1:
            raise InputError(f"{number} frames would be called {name}; rename all but one")
    return names


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("annotations", help="a file, or a folder of masks")
    result.add_argument("output", help="a folder")
    result.add_argument("--format", required=True, choices=[*WRITERS])
    result.add_argument(
        "--video", help="what the video is called, by default as the folder of its annotations"
    )
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    runner.run("convert_annotations", parser(), _run, argv)


if __name__ == "__main__":
    main()
