"""Compose RealSound, a benchmark of real recordings, from two public repositories.

compose_realsound.py --esc50 ESC-50 --noto-emoji noto-emoji --output datasets

The clones are those of github.com/karolpiczak/ESC-50 and github.com/googlefonts/noto-emoji;
docs/REALSOUND.md describes the sets.
"""

import argparse
import os
from pathlib import Path

from qdformer.commands import runner
from qdformer.errors import InputError
from qdformer.synthetic.realsound import (
    SETS,
    compose_realsound,
    libraries_of_clones,
    libraries_of_tree,
)


def _run(args: argparse.Namespace) -> None:
    """Compose, and name what can be trained on."""
    if args.assets:
        libraries = libraries_of_tree(args.assets)
    elif args.esc50 and args.noto_emoji:
        libraries = libraries_of_clones(args.esc50, args.noto_emoji)
    else:
        raise InputError("give --esc50 and --noto-emoji, or --assets with what is taken from them")
    roots = compose_realsound(args.output, libraries, args.sets, args.workers)
    for name, root in zip(args.sets, roots):
        splits = ", ".join(f"{root.name}_{SETS[name].layout}_{split}" for split in libraries)
        print(f"{root}: {splits}")
    print(f"DETECTRON2_DATASETS={args.output} lets DATASETS.AVS_ROOTS find them by these names.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    add = result.add_argument
    add("--esc50", type=Path, help="a clone of ESC-50")
    add("--noto-emoji", type=Path, help="a clone of noto-emoji")
    add("--assets", type=Path, help="sounds/, cutouts/, noise/, each with a folder a class")
    add("--output", type=Path, required=True, help="a folder for the roots of the sets")
    add("--sets", nargs="+", default=list(SETS), help=f"{', '.join(SETS)}; all by default")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return result


def main(argv: list[str] | None = None) -> int | None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    return runner.run("compose_realsound", parser(), _run, argv)


if __name__ == "__main__":
    main()
