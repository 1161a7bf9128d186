"""Write a page that lets one hear and see what each word of a trained codebook stands for.

explain_codebook.py --config-file configs/realsound/avss.yaml --output output/words.html
    MODEL.WEIGHTS output/model_final.safetensors [KEY VALUE ...]

The clips are those of the first set of DATASETS.TEST.
"""

import argparse
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.commands import runner
from qdformer.config.loading import load_config
from qdformer.config.validation import check_config
from qdformer.data.dataset_mapper import build_mapper
from qdformer.engine.setup import check_datasets, register_roots
from qdformer.engine.trainer import Trainer
from qdformer.errors import InputError, make_folder
from qdformer.io.atomic_write import atomic_write
from qdformer.progress import Progress
from qdformer.reproduction.word_page import collect_words, write_word_page


def _run(args: argparse.Namespace) -> None:
    """Segment the test set and write the page."""
    cfg = load_config(args.config_file, args.opts)
    check_config(cfg)
    qdformer = cfg.MODEL.QDFORMER
    if cfg.MODEL.META_ARCHITECTURE != "QDFormer" or not qdformer.QUANTIZATION:
        raise InputError(f"{args.config_file}: its network has no codebook; give one of a QDFormer")
    register_roots(cfg.DATASETS.AVS_ROOTS)
    check_datasets(cfg, eval_only=True)
    make_folder(Path(args.output).parent, f"{args.output}: its folder")
    model = Trainer.build_model(cfg).eval()
    AVSCheckpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    name = cfg.DATASETS.TEST[0]
    metadata, mapper = MetadataCatalog.get(name), build_mapper(cfg, False)
    clips = Progress(DatasetCatalog.get(name), unit="clip")
    use = collect_words(
        model,
        ((mapper(record), cfg.INPUT.AUDIO_HOP) for record in clips),
        metadata,
        qdformer.CODEBOOK.NUM_CODES,
        qdformer.CLASS_THRESHOLD,
    )
    with atomic_write(args.output) as partial:
        partial.write_text(write_word_page(use, metadata, f"Words of {name}"), encoding="utf-8")
    print(f"Page: {args.output}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--config-file", required=True, help="of the model")
    result.add_argument("--output", default="output/words.html", help="the page")
    result.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("explain_codebook", parser(), _run, argv)


if __name__ == "__main__":
    main()
