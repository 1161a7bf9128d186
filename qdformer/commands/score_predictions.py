"""Score a folder of masks, ours or another method's, with all the metrics of a data set.

score_predictions.py --data avsbench_ms3_test --predictions output/inference/avsbench_ms3_test/masks

train_net.py --eval-only --save-predictions writes such folders: <video_id>/<name>_<t>.png, as
AVSBench's code does. qdformer/evaluation/saved_predictions.py says what else is read.
"""

import argparse
import logging

from detectron2.data import DatasetCatalog

from qdformer.commands import runner
from qdformer.engine.setup import register_roots
from qdformer.errors import InputError
from qdformer.evaluation.saved_predictions import score_predictions


def _run(args: argparse.Namespace) -> None:
    """Score and print."""
    register_roots(args.roots)
    if args.data not in DatasetCatalog.list():
        raise InputError(
            f"--data is {args.data!r}, which is not registered; name its root with --roots, or the "
            "module that registers it with --import"
        )
    results = score_predictions(args.data, args.predictions, args.output)
    for task, metrics in (results or {}).items():
        print(f"{task} of {args.data}")
        print("\n".join(f"{name:24}{value:10.2f}" for name, value in metrics.items()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--data", required=True, help="a registered data set")
    result.add_argument("--predictions", required=True, help="a folder")
    result.add_argument("--output", help="a folder for the result as JSON")
    result.add_argument("--roots", nargs="*", default=[], help="as DATASETS.AVS_ROOTS")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    runner.run("score_predictions", parser(), _run, argv)


if __name__ == "__main__":
    main()
