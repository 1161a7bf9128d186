"""Segment what sounds in your own videos: overlays with sound, label maps, annotations, time lines.

demo.py --input video.mp4 --weights model_final.safetensors --output output/demo [KEY VALUE ...]

--input takes several videos, folders and patterns, too; --webcam records a camera and a microphone
first. Each video gets a folder of its name with overlay.mp4, frames/, masks/, annotations.json
(qdformer/demo/annotation.py says what is in it) and time_line.png.
"""

import argparse
import logging
import sys
from datetime import datetime
from pathlib import Path

from qdformer.commands import runner
from qdformer.demo.annotate import AnnotateOptions
from qdformer.demo.batch import annotate_all
from qdformer.demo.command_line import add_model_options, load_model_config, load_predictor
from qdformer.demo.inputs import find_videos
from qdformer.errors import InputError, make_folder
from qdformer.progress import Progress
from qdformer.video.capture import record


def _run(args: argparse.Namespace) -> int:
    """Annotate the videos; 1 if one of them could not be, else 0."""
    if not args.input and args.webcam is None:
        raise InputError("there is no video; name some with --input, or record one with --webcam")
    videos = [video for given in args.input or () for video in find_videos(given)]
    if args.webcam is not None:
        load_model_config(args)  # what cannot be used is told before anything is recorded
        videos.append(_recorded(args))
    outcomes = annotate_all(
        lambda: load_predictor(args),
        videos,
        Path(args.output),
        AnnotateOptions(args.every, tracked=args.between == "tracked", preview=args.preview),
        args.sound_track,
    )
    done = [outcome for outcome in outcomes if not outcome.error]
    for outcome in done:
        print(f"{outcome.video} -> {outcome.folder}")
    print(f"{len(done)} of {len(outcomes)} videos done")
    return 0 if len(done) == len(outcomes) else 1


def _recorded(args: argparse.Namespace) -> Path:
    """What camera and microphone give, as a file beside the results."""
    # Not where the results of a video of its name go.
    output = Path(args.output) / "recordings"
    make_folder(output, f"the output folder {output}")
    path = output / f"webcam-{datetime.now():%Y%m%d-%H%M%S}.mkv"
    with Progress(total=args.seconds, desc="recording", unit="s", unit_scale=False) as bar:
        record(
            path, args.webcam, args.microphone, args.seconds, lambda time: bar.update(time - bar.n)
        )
    return path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--input", nargs="+", help="videos, folders or patterns")
    result.add_argument(
        "--webcam",
        metavar="CAMERA",
        help="record this device, such as /dev/video0, and segment what was recorded",
    )
    result.add_argument("--microphone", default="default", help='beside it, "none" for none')
    result.add_argument("--seconds", type=float, default=10.0, help="that --webcam records")
    result.add_argument("--output", default="output/demo", help="a folder")
    result.add_argument("--every", type=float, default=1.0, help="seconds between segmented frames")
    result.add_argument(
        "--between",
        choices=("held", "tracked"),
        default="held",
        help="what masks do between segmented frames: hold still, or follow the motion",
    )
    result.add_argument("--preview", action="store_true", help="an animated picture, too")
    result.add_argument(
        "--sound-track", type=int, help="which one is heard, from 0 on; the first that can be"
    )
    add_model_options(result)
    return result


def joined(arguments: list[str]) -> list[str]:
    """The command line with a name that begins with a dash tied to its option."""
    place = arguments.index("--input") if "--input" in arguments[:-1] else -1
    if place >= 0 and arguments[place + 1].startswith("-"):
        arguments[place : place + 2] = [f"--input={arguments[place + 1]}"]
    return arguments


def main(argv: list[str] | None = None) -> int | None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    return runner.run("demo", parser(), _run, joined(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
