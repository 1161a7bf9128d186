"""``make demo``: composes data, trains a small QDFormer on the CPU, evaluates it and shows it."""

import argparse
import os
import sys
from pathlib import Path

from detectron2.engine import default_argument_parser

from qdformer.commands import runner
from qdformer.config.loading import load_config
from qdformer.config.validation import check_config
from qdformer.engine.quickstart import compose_quickstart, show
from qdformer.engine.setup import setup
from qdformer.engine.sound_comparison import compare_sounds, save, table
from qdformer.engine.trainer import Trainer


def _run(args: argparse.Namespace) -> None:
    """Run the four steps and say where their results lie."""
    check_config(load_config(args.config_file, args.opts))
    data = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "quickstart"
    output = Path(args.output)
    print(f"1/4 composing clips with sound in {data}", flush=True)
    compose_quickstart(data, size=64, frames=5)
    print(f"2/4 training {args.config_file} (log in {output}/log.txt)", flush=True)
    arguments = default_argument_parser().parse_args(
        ["--config-file", args.config_file, "--resume", "OUTPUT_DIR", str(output), *args.opts]
    )
    cfg = setup(arguments)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    print("3/4 evaluating held-out clips with the right sound and with wrong ones", flush=True)
    comparison = compare_sounds(cfg, trainer.model)
    save(comparison, output / "results.json")
    print("4/4 drawing", flush=True)
    files = show(cfg, trainer.model, output / "predictions")
    print(
        f"\n{table(comparison, cfg.DATASETS.TEST[0])}\n\n"
        f"The numbers lie in {output / 'results.json'}; predictions beside ground truth:"
    )
    print("\n".join(f"  {file}" for file in files))
    model = output / "model_final.safetensors"
    print(
        f"The model: {model}; delete {output} to train again.\n\n"
        "Now your own video, and a page that plays it:\n"
        f"  {sys.executable} projects/QDFormer/demo.py --weights {model} --input video.mp4\n"
        f"  {sys.executable} projects/QDFormer/web_demo.py --weights {model}"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__)
    runner.add_import_flag(result)
    result.add_argument("--config-file", default="quickstart.yaml")
    result.add_argument("--output", default="output/quickstart")
    result.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("quickstart", parser(), _run, argv)


if __name__ == "__main__":
    main()
