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

import torch

from qdformer.benchmark.report import describe_machine
from qdformer.commands import runner
from qdformer.engine.hooks import Preempted
from qdformer.reproduction.experiment_file import read_experiment
from qdformer.reproduction.experiments import EXPERIMENTS, find_experiment
from qdformer.reproduction.figures import FigureOptions, draw_figure
from qdformer.reproduction.report import write_report
from qdformer.reproduction.runs import execute, plan


def _run(args: argparse.Namespace) -> None:
    """Run what is missing and write the report."""
    own = Path(args.experiment).suffix in (".yaml", ".yml")
    experiment = (read_experiment if own else find_experiment)(args.experiment)
    name = Path(args.experiment).stem
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
        pictures = draw_figure(name, runs, options)
    finally:
        machine = describe_machine("cuda" if torch.cuda.is_available() else "cpu")
        files = write_report(output / name, experiment, runs, pictures, machine)
        print("\n".join(f"Report: {file}" for file in files))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    add = result.add_argument
    add("experiment", help=f"{', '.join(EXPERIMENTS)}, or a yaml")
    add("--data", nargs="+", required=True, help="names without _train, _test")
    add("--config-file", required=True, help="that the rows change")
    add("--seeds", type=int, default=1, help="runs of each row")
    add("--output", default="output/reproduce")
    snrs, noise = FigureOptions.snrs, FigureOptions.noise
    add("--snr", nargs="+", type=float, default=snrs, help="Fig. 7: decibels, sound over noise")
    add("--noise", default=noise, help="Fig. 7: a folder of recordings, or what is synthesized")
    add("--classes", nargs="+", default=(), help="Fig. 6: classes to show")
    add("opts", nargs="*", help="KEY VALUE pairs for all rows")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runner.run("reproduce", parser(), _run, argv, intermixed=True)
    except (KeyboardInterrupt, Preempted):
        print("reproduce: stopped; the same command goes on", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)


if __name__ == "__main__":
    main()
