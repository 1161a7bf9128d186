"""Composes an audio-visual segmentation data set in AVSBench's layouts; see datasets/README.md."""

import argparse
import sys
from pathlib import Path

from qdformer.commands import runner
from qdformer.errors import InputError, one_line_message
from qdformer.synthetic.assets import AssetFolders
from qdformer.synthetic.composer import SOURCES, ComposeOptions, compose


def names(text: str) -> tuple[str, ...]:
    """Reads ``a,b,c``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def sources(text: str) -> tuple[int, int]:
    """Reads ``single``, ``multi`` or ``MIN-MAX``."""
    low, _, high = text.partition("-")
    return SOURCES.get(text) or (int(low), int(high))


def clips(text: str) -> dict[str, int]:
    """Reads ``train=800,val=100,test=100``."""
    return {split: int(count) for split, _, count in (part.partition("=") for part in names(text))}


def decibels(text: str) -> float | None:
    """Reads a number or ``none``."""
    return None if text == "none" else float(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = ComposeOptions(Path())
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    runner.add_import_flag(result)
    add = result.add_argument
    add("--output", type=Path, required=True, help="root of the data set; continued if it exists")
    add("--layout", nargs="+", default=defaults.layouts, help="which trees")
    add("--assets", type=Path, help="folder of cutouts/, sounds/, noise/, backgrounds/")
    add("--cutouts", type=Path, help="<class>/*.png, RGBA; drawn if not given")
    add("--sounds", type=Path, help="<class>/*.{wav,ogg,flac}; synthesized if not given")
    add("--noise", type=Path, help="<class>/*.{wav,ogg,flac}; synthesized if not given")
    add("--backgrounds", type=Path, help="*.{jpg,png}; drawn if not given")
    add("--classes", type=names, default=defaults.classes, help="a,b,c; all if not given")
    add("--frames", type=int, default=defaults.frames, help="frames of a clip, one a second")
    add("--size", type=int, default=defaults.size, help="height and width in pixels")
    add("--sources", type=sources, default="multi", help="that sound: single, multi or MIN-MAX")
    add("--clips", type=clips, default="train=800,val=100,test=100", help="of each layout")
    add("--snr", type=decibels, default=defaults.snr, help="of the noise in dB, or none")
    add("--seed", type=int, default=defaults.seed, help="the same seed writes the same bytes")
    add("--workers", type=int, default=defaults.workers, help="processes")
    return result


def main(argv: list[str] | None = None) -> None:
    """Composes what the command line says; exits with 2 and one sentence if it is not possible."""
    args = parser().parse_args(argv)
    try:
        runner.import_extensions(args.imports)
    except InputError as error:
        sys.exit(f"compose: {one_line_message(error)}")
    folders = AssetFolders.under(
        args.assets, args.cutouts, args.sounds, args.noise, args.backgrounds
    )
    options = ComposeOptions(
        output=args.output,
        layouts=tuple(args.layout),
        folders=folders,
        classes=args.classes,
        frames=args.frames,
        size=args.size,
        sources=args.sources,
        clips=args.clips,
        snr=args.snr,
        seed=args.seed,
        workers=args.workers,
    )
    try:
        root = compose(options)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    print(f"composed {root}")


if __name__ == "__main__":
    main()
