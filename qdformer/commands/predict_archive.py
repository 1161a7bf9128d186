"""Segment what sounds in every video of an archive: tables of masks, classes, scores and codewords.

predict_archive.py --input videos/ --weights model_final.safetensors --output output/archive
predict_archive.py --input manifest.csv 'shards/*.tar' --engine ray --address auto --actors 4 ...

--input takes folders, manifests (csv, jsonl or parquet with a column video), WebDataset's shards
and videos. The output has a row a video in results-*.parquet and one for each that failed in
errors.parquet; qdformer/archive/tables.py says what is in them. The same command again continues.
"""

import argparse
import functools
import hashlib
import os
import signal
import sys

from qdformer.checkpoint.hub import local_file
from qdformer.commands import runner
from qdformer.demo.command_line import add_model_options, load_model_config, load_predictor
from qdformer.errors import InputError
from qdformer.predictor import checked_span


def _run(args: argparse.Namespace) -> int:
    """Segment the archive; 1 if a video failed, else 0."""
    from qdformer.archive.items import find_items
    from qdformer.archive.local_engine import LocalEngine
    from qdformer.archive.prediction import Engine, predict_archive
    from qdformer.archive.ray_engine import RayEngine
    from qdformer.archive.tables import ArchiveTables

    for key in ("workers", "actors", "batch"):
        if getattr(args, key) < 1:
            raise InputError(f"--{key} is {getattr(args, key)}; give 1 or more")
    if args.gpus_per_actor < 0:
        raise InputError(f"--gpus-per-actor is {args.gpus_per_actor}; give 0 or more")
    every = checked_span(args.every)
    if "://" not in args.weights:
        args.weights = os.path.abspath(args.weights)  # for processes elsewhere
    load, cfg = functools.partial(load_predictor, args), load_model_config(args)
    items = find_items(args.input)
    tables = ArchiveTables(
        args.output,
        {
            "weights": _checksum(local_file(args.weights)),
            "config": args.config_file,
            "options": args.opts,
            "every": every,
        },
    )
    for item in items if args.retry_failed else ():
        tables.failed.pop(item.name, None)
    if all(tables.has(item.name) for item in items):
        return _report(args.output, tables, items)
    engine: Engine
    if args.engine == "ray":
        engine = RayEngine(
            load,
            cfg,
            every=every,
            actors=args.actors,
            batch=args.batch,
            gpus=args.gpus_per_actor,
            address=args.address,
            imports=args.imports,
        )
    else:
        engine = LocalEngine(
            load,
            cfg,
            every=every,
            workers=args.workers,
            batch=args.batch,
            imports=args.imports,
        )
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        predict_archive(items, engine, tables)
    except KeyboardInterrupt:
        _report(args.output, tables, items)
        print("Stopped; the same command continues.")
        return os.EX_TEMPFAIL
    finally:
        signal.signal(signal.SIGTERM, handler)
        tables.close()
    return _report(args.output, tables, items)


def _checksum(path: str) -> str:
    """The SHA-256 of a file: whether these are the weights that a table was made with."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(2**20):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a checkpoint") from error
    return digest.hexdigest()


def _report(output: str, tables, items) -> int:
    failed = sum(item.name in tables.failed for item in items)
    done = sum(item.name in tables.done for item in items)
    print(f"{output}: {done} of {len(items)} videos done, {failed} failed")
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--input", required=True, nargs="+", help="folders, manifests, shards, ...")
    result.add_argument("--output", default="output/archive", help="a folder")
    result.add_argument("--every", type=float, default=1.0, help="seconds between segmented frames")
    result.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="one machine, or Ray's cluster"
    )
    result.add_argument("--workers", type=int, default=1, help="local: processes that decode")
    result.add_argument("--actors", type=int, default=1, help="ray: processes with the model")
    result.add_argument("--gpus-per-actor", type=float, default=0.0, help="ray")
    result.add_argument("--address", help="ray: of a cluster; by default one is started here")
    result.add_argument("--batch", type=int, default=4, help="windows that are segmented together")
    result.add_argument(
        "--retry-failed", action="store_true", help="try what failed in an earlier call, too"
    )
    add_model_options(result)
    return result


def main(argv: list[str] | None = None) -> int | None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    return runner.run("predict_archive", parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
