"""Train, evaluate and report a table or figure of the paper on any registered data sets.

reproduce.py tab2 --data avsbench_ms3 avsbench_avss --config-file configs/qdformer_r50.yaml
    --seeds 3 [--output output/reproduce] [KEY VALUE ...]

What is done is skipped and what was cut off is resumed: give the same command again.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

# First: makes Detectron2 importable and registers the models.
import qdformer.qdformer  # noqa: F401
import torch
from qdformer.benchmark.machine import describe_machine
from qdformer.engine.hooks import Stopped
from qdformer.errors import InputError, sentence
from qdformer.reproduction.experiments import EXPERIMENTS, find_experiment
from qdformer.reproduction.figures import FigureOptions, draw_figure
from qdformer.reproduction.report import write_report
from qdformer.reproduction.runs import execute, plan


def main(args: argparse.Namespace) -> None:
    """Run what is missing and write the report."""
    experiment = find_experiment(args.experiment)
    output = Path(args.output)
    runs = plan(
        experiment,
        data=args.data,
        seeds=args.seeds,
        config_file=args.config_file,
        overrides=args.opts,
        output=output,
    )
    pictures = {}
    try:
        execute(runs)
        options = FigureOptions(tuple(args.snr), args.noise, tuple(args.classes))
        pictures = draw_figure(args.experiment, runs, options)
    finally:
        machine = describe_machine("cuda" if torch.cuda.is_available() else "cpu")
        files = write_report(output / args.experiment, experiment, runs, pictures, machine)
        print("\n".join(f"Report: {file}" for file in files))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", help=", ".join(EXPERIMENTS))
    parser.add_argument("--data", nargs="+", required=True, help="names without _train, _test")
    parser.add_argument("--config-file", required=True, help="that the rows change")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row")
    parser.add_argument("--output", default="output/reproduce")
    parser.add_argument("--snr", nargs="+", type=float, default=FigureOptions.snrs,
                        help="Fig. 7: decibels, sound over noise")  # fmt: skip
    parser.add_argument("--noise", default=FigureOptions.noise,
                        help="Fig. 7: a folder of recordings, or what is synthesised")  # fmt: skip
    parser.add_argument("--classes", nargs="+", default=(), help="Fig. 6: classes to show")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs for all rows")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(parser.parse_intermixed_args())
    except InputError as error:
        sys.exit(f"reproduce.py: {sentence(error)}")
    except (KeyboardInterrupt, Stopped):
        print("reproduce.py: stopped; the same command goes on", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
