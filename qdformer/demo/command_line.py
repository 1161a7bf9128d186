"""The options by which the demo's commands name a model."""

import argparse

from detectron2.config import CfgNode

from qdformer.config.loading import load_config
from qdformer.config.validation import check_config
from qdformer.engine.setup import check_datasets, register_roots
from qdformer.predictor import AudioVisualPredictor, model_config


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights``, ``--config-file``, ``--device`` and the config's keys.

    Args:
        parser: that has all of its other options.
    """
    parser.add_argument(
        "--weights", default="output/quickstart/model_final.safetensors", help="a checkpoint"
    )
    parser.add_argument("--config-file", default="", help="for weights that do not carry theirs")
    parser.add_argument(
        "--confidence-threshold",
        type=_probability,
        metavar="P",
        help="least probability of a class that is shown, 0 to 1; by default the model's",
    )
    parser.add_argument("--device", help="cpu, cuda, ...; by default what the model was trained on")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no probability; give 0 to 1")
    return value


def load_predictor(args: argparse.Namespace) -> AudioVisualPredictor:
    """The model; with a config file its classes are those of the config's test set.

    Args:
        args: with the options of :func:`add_model_options`.

    Raises:
        InputError: the model cannot be loaded.
    """
    return AudioVisualPredictor(*_trained(args))


def load_model_config(args: argparse.Namespace) -> CfgNode:
    """The config of :func:`load_predictor`'s model, which is not made for it."""
    return model_config(*_trained(args))[0]


def _trained(args: argparse.Namespace) -> tuple[str | CfgNode, list[str], str | None]:
    opts = [*args.opts]
    if args.confidence_threshold is not None:
        opts += ["MODEL.QDFORMER.CLASS_THRESHOLD", str(args.confidence_threshold)]
    if not args.config_file:
        return args.weights, opts, args.device
    cfg = load_config(args.config_file, [*opts, "MODEL.WEIGHTS", args.weights])
    check_config(cfg)
    register_roots(cfg.DATASETS.AVS_ROOTS)
    check_datasets(cfg, eval_only=True)
    return cfg, [], args.device
