"""Write a trained model as one ONNX file and compare ONNX Runtime's results with PyTorch's.

export_onnx.py --config-file output/config.yaml --output model.onnx [KEY VALUE ...]

Among the keys MODEL.WEIGHTS names the checkpoint.
"""

import argparse
import contextlib
import itertools

import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from qdformer.benchmark.options import Workload
from qdformer.benchmark.runs import random_clips
from qdformer.benchmark.timing import relative, time_in_turn
from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.commands import runner
from qdformer.config.loading import load_config
from qdformer.config.validation import check_config
from qdformer.engine.setup import check_datasets, load_records, register_roots
from qdformer.errors import InputError
from qdformer.export.onnx import OnnxSegmenter, export_onnx

LENGTHS, SIZES, ROUNDS = (2, 5), (100, 224), 5


def _run(args: argparse.Namespace) -> None:
    """Export, then compare."""
    cfg = load_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    check_config(cfg)
    register_roots(cfg.DATASETS.AVS_ROOTS)
    if not cfg.MODEL.QDFORMER.NUM_CLASSES:
        check_datasets(cfg, eval_only=True)
    model = build_model(cfg).eval()
    AVSCheckpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    print(f"Writing {args.output}, which takes a minute or two", flush=True)
    export_onnx(model, args.output, class_names(cfg))
    segmenter = OnnxSegmenter(args.output)
    for frames, size in itertools.product(LENGTHS, SIZES):
        print(compare(model, segmenter, frames, size), flush=True)


def class_names(cfg) -> list[str]:
    """Those of the first data set to test on, background first; none without its files."""
    for name in cfg.DATASETS.TEST[:1]:
        # Only where the names lie in a file is the data set needed.
        with contextlib.suppress(InputError):
            load_records(name)
        names = MetadataCatalog.get(name).get("stuff_classes", [])
        if len(names) == cfg.MODEL.QDFORMER.NUM_CLASSES + 1:
            return names
    return []


@torch.no_grad()
def compare(model: torch.nn.Module, segmenter: OnnxSegmenter, frames: int, size: int) -> str:
    """Label maps and times of both on a clip of noise."""
    clips = random_clips(Workload(frames=frames, size=size))
    runs = {"onnx": lambda: segmenter(clips), "torch": lambda: model(clips)}
    differing = (segmenter(clips)[0]["sem_seg"] != model(clips)[0]["sem_seg"]).float().mean()
    title = f"{frames} frames of {size} x {size}"
    seconds = time_in_turn(runs, ROUNDS, title, warmup=1)
    ratio = relative(seconds["onnx"], seconds["torch"])["ratio"]["median"]
    return f"{title}: {differing:.4%} of the pixels differ, {ratio:.2f} times PyTorch's time"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--config-file", required=True)
    result.add_argument("--output", default="output/model.onnx")
    result.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("export_onnx", parser(), _run, argv)


if __name__ == "__main__":
    main()
