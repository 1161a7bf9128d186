"""Checks AVSBench, or synthetic clips in its layouts, before a training uses it."""

import argparse
import os
import sys

from qdformer.commands import runner
from qdformer.data.datasets.classes import AVSS_CLASSES
from qdformer.data.datasets.validation import check_tree
from qdformer.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        required=True,
        help="open every file and report; exit code 0: training can start, 1: it cannot",
    )
    parser.add_argument(
        "--root",
        help="folder that holds Single-source, Multi-sources or AVSBench_semantic, with the "
        "classes of its own label2idx.json (default: AVSBench in $DETECTRON2_DATASETS, or else "
        "in datasets)",
    )
    parser.add_argument("--layout", nargs="+", help="data sets to check (default: all there are)")
    runner.add_import_flag(parser)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="threads (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    root = args.root or os.getenv("DETECTRON2_DATASETS", "datasets")
    try:
        runner.import_extensions(args.imports)
        classes = None if args.root else AVSS_CLASSES
        report = check_tree(root, args.layout, classes, max(1, args.workers))
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    print(report)
    return 0 if report.can_train else 1


if __name__ == "__main__":
    sys.exit(main())
