"""Evaluate a model on the same frames with the right sound, silence, other sounds and noise.

compare_sounds.py --snr 20 10 0 -10 --config-file configs/qdformer_r50.yaml
    MODEL.WEIGHTS output/model_final.safetensors [KEY VALUE ...]

The set is the first of DATASETS.TEST, the table goes to OUTPUT_DIR/sounds.json as well.
"""

import argparse
from pathlib import Path

from detectron2.engine import default_argument_parser

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.checkpoint.metadata import run_metadata
from qdformer.commands import runner
from qdformer.engine.setup import setup
from qdformer.engine.sound_comparison import compare_sounds, save, table
from qdformer.engine.trainer import Trainer


def _run(args: argparse.Namespace) -> None:
    """Evaluate, print the table and write it."""
    config = ["--config-file", args.config_file, "--eval-only", *args.opts]
    cfg = setup(default_argument_parser().parse_args(config))
    model = Trainer.build_model(cfg)
    name = cfg.DATASETS.TEST[0]
    description = run_metadata(cfg, name)
    AVSCheckpointer(model, complete=True, description=description).load(cfg.MODEL.WEIGHTS)
    comparison = compare_sounds(cfg, model, args.snr, args.noise)
    save(comparison, Path(cfg.OUTPUT_DIR) / "sounds.json")
    print(table(comparison, name))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--config-file", required=True, help="of the model")
    result.add_argument("--snr", type=float, nargs="*", default=[], help="of noise, dB")
    result.add_argument("--noise", default="mixture", help="a folder of recordings, or synthesized")
    result.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("compare_sounds", parser(), _run, argv)


if __name__ == "__main__":
    main()
