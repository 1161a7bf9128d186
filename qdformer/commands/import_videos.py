"""Make videos with annotations a data set to train and test on.

import_videos.py --videos a.mp4 b.mp4 --annotations a.json b.json --output datasets/mine
import_videos.py --videos c.mp4 --annotations c.json --output datasets/mine --split test

Annotations are COCO's or YouTube-VIS's JSON, CVAT's XML, or a folder of masks like DAVIS's, and
demo.py writes them, too. Objects are those that sound in a frame; a frame that is listed without
any is silent. Then, with any config:
train_net.py ... DATASETS.AVS_ROOTS '("mine",)' DATASETS.TRAIN '("mine_avss_train",)' ...
"""

import argparse

from qdformer.commands import runner
from qdformer.own_data.video_import import import_videos


def _run(args: argparse.Namespace) -> None:
    """Import, and say what was written."""
    counted = import_videos(args.videos, args.annotations, args.output, args.split, args.every)
    print(f"{args.output}: {counted['clips']} clips of {counted['frames']} frames ({args.split})")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--videos", nargs="+", required=True, help="files with sound")
    result.add_argument(
        "--annotations", nargs="+", required=True, help="of each video, or one of all"
    )
    result.add_argument("--output", required=True, help="the root of the data set")
    result.add_argument(
        "--every",
        type=float,
        help="seconds between numbered frames, e.g. 1 for those that demo.py writes; by default "
        "numbers count the video's own frames",
    )
    result.add_argument("--split", default="train", help="train, val or test")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("import_videos", parser(), _run, argv)


if __name__ == "__main__":
    main()
