"""Check AVSBench, or other data in its layouts, before a training uses it."""

import argparse
import os
import sys

from qdformer.commands import runner
from qdformer.data.datasets.classes import AVSS_CLASSES
from qdformer.data.datasets.validation import check_tree


def _run(args: argparse.Namespace) -> int:
    """Report; 1 if a training cannot start, else 0."""
    root = args.root or os.getenv("DETECTRON2_DATASETS", "datasets")
    classes = None if args.root else AVSS_CLASSES
    report = check_tree(root, args.layout, classes, max(1, args.workers))
    print(report)
    return 0 if report.can_train else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__)
    runner.add_import_flag(result)
    result.add_argument(
        "--check",
        action="store_true",
        required=True,
        help="open every file and report; exit code 0: training can start, 1: it cannot",
    )
    result.add_argument(
        "--root",
        help="folder that holds Single-source, Multi-sources or AVSBench_semantic, with the "
        "classes of its own label2idx.json (default: AVSBench in $DETECTRON2_DATASETS, or else "
        "in datasets)",
    )
    result.add_argument("--layout", nargs="+", help="data sets to check (default: all there are)")
    result.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="threads (default: %(default)s)"
    )
    return result


def main(argv: list[str] | None = None) -> int | None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    return runner.run("prepare_avsbench", parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
