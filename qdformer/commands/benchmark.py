"""Measure how fast a config is and what it needs, in units of a ResNet-50 timed in turn with it.

benchmark.py --config-file configs/qdformer_r50.yaml [--measure eval train ...] [KEY VALUE ...]
benchmark.py --compare A.json B.json [...]
"""

import argparse
from pathlib import Path

import torch

from qdformer.benchmark.measures import MEASURES, default_measures
from qdformer.benchmark.options import PRECISIONS, BenchmarkOptions, Workload
from qdformer.benchmark.report import (
    chart_file,
    comparison,
    load_result,
    run_benchmark,
    summary,
)
from qdformer.commands import runner


def _run(args: argparse.Namespace) -> None:
    """Measure, or show what was measured."""
    if args.compare:
        print(comparison([load_result(Path(file)) for file in args.compare]))
        return
    output = Path(args.output or f"output/benchmark/{Path(args.config_file).stem}.json")
    workload = Workload(
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        frames=args.frames,
        size=args.size,
        batch=args.batch,
        precision=args.precision,
    )
    options = BenchmarkOptions(
        config_file=args.config_file,
        output=output,
        measures=tuple(args.measure or default_measures(workload)),
        overrides=tuple(args.opts),
        workload=workload,
        repeats=args.repeats,
        growth_frames=tuple(args.growth_frames),
        growth_sizes=tuple(args.growth_sizes),
    )
    result = run_benchmark(options)
    charts = [chart_file(output, measure) for measure in result["results"]]
    print(f"\n{summary(result)}\n\nThe numbers lie in {output}.")
    print("\n".join(f"A picture: {chart}" for chart in charts if chart.exists()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default = BenchmarkOptions("", Path(), ())
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    add = result.add_argument
    add("--config-file", default="qdformer_r50.yaml")
    add("--device", help="cpu or cuda; cuda where it is found, whatever MODEL.DEVICE says")
    add("--frames", type=int, default=5, help="of a clip")
    add("--size", type=int, default=224, help="height and width of the frames, pixels")
    add("--batch", type=int, default=1, help="clips")
    add("--precision", default="fp32", help=", ".join(PRECISIONS))
    add("--repeats", type=int, default=10, help="of each timing; of growth, data, video at most 3")
    add("--measure", nargs="+", help=f"{', '.join(MEASURES)}; by default the first four")
    add("--growth-frames", type=int, nargs="+", default=default.growth_frames)
    add("--growth-sizes", type=int, nargs="+", default=default.growth_sizes)
    add("--output", help="JSON; by default output/benchmark/<config>.json")
    add("--compare", nargs="+", metavar="JSON", help="show results side by side instead")
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("benchmark", parser(), _run, argv)


if __name__ == "__main__":
    main()
