"""Segment what sounds in your own videos: overlays with sound, label maps, annotations, time lines.

demo.py --input video.mp4 --weights model_final.pth --output output/demo [KEY VALUE ...]

--input may be a folder or a pattern, too. Each video gets a folder of its name with overlay.mp4,
masks/, annotations.json (qdformer/demo/annotation.py says what is in it) and time_line.png.
"""

import argparse
import logging
import sys
from pathlib import Path

# First: makes Detectron2 importable and registers the models.
from qdformer.predictor import AudioVisualPredictor
from qdformer.demo.annotate import AnnotateOptions
from qdformer.demo.batch import annotate_all
from qdformer.demo.inputs import find_videos
from qdformer.engine.config_check import check_config
from qdformer.engine.setup import check_datasets, load_config, register_roots
from qdformer.errors import InputError, sentence


def main(args: argparse.Namespace) -> int:
    """Annotate the videos; 1 if one of them could not be, else 0."""
    outcomes = annotate_all(
        lambda: load(args),
        find_videos(args.input),
        Path(args.output),
        AnnotateOptions(args.every, tracked=args.between == "tracked", preview=args.preview),
        args.sound_track,
    )
    done = [outcome for outcome in outcomes if not outcome.error]
    for outcome in done:
        print(f"{outcome.video} -> {outcome.folder}")
    print(f"{len(done)} of {len(outcomes)} videos done")
    return 0 if len(done) == len(outcomes) else 1


def load(args: argparse.Namespace) -> AudioVisualPredictor:
    """The model; with a config file its classes are those of the config's data set."""
    if not args.config_file:
        return AudioVisualPredictor(args.weights, args.opts, args.device)
    cfg = load_config(args.config_file, [*args.opts, "MODEL.WEIGHTS", args.weights])
    check_config(cfg)
    register_roots(cfg.DATASETS.AVS_ROOTS)
    check_datasets(cfg, eval_only=True)
    return AudioVisualPredictor(cfg, device=args.device)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--input", required=True, help="a video, a folder or a pattern")
    result.add_argument("--output", default="output/demo", help="a folder")
    result.add_argument("--weights", default="output/quickstart/model_final.pth")
    result.add_argument("--config-file", default="", help="for weights that do not carry theirs")
    result.add_argument("--every", type=float, default=1.0, help="seconds between segmented frames")
    result.add_argument(
        "--between",
        choices=("held", "tracked"),
        default="held",
        help="what masks do between segmented frames: hold still, or follow the motion",
    )
    result.add_argument("--preview", action="store_true", help="an animated picture, too")
    result.add_argument("--sound-track", type=int, default=0, help="which one is heard, from 0 on")
    result.add_argument("--device", help="cpu, cuda, ...; by default what the model was trained on")
    result.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return result


def joined(arguments: list[str]) -> list[str]:
    """The command line with names that begin with a dash tied to their option."""
    if "--input" in arguments[:-1]:
        place = arguments.index("--input")
        arguments[place : place + 2] = [f"--input={arguments[place + 1]}"]
    return arguments


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    try:
        sys.exit(main(parser().parse_args(joined(sys.argv[1:]))))
    except InputError as error:
        sys.exit(f"demo.py: {sentence(error)}")
