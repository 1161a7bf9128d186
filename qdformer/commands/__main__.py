"""``qdformer <command> ...``, also as ``python -m qdformer.commands``."""

import importlib
import sys

COMMANDS = {
    "train": ("train_net", "train, continue (--resume) or evaluate (--eval-only) a model"),
    "eval": ("train_net", "evaluate a model: train --eval-only"),
    "sounds": ("compare_sounds", "evaluate a model with right and wrong sounds and under noise"),
    "score": ("score_predictions", "score a folder of masks, ours or another method's"),
    "predict": ("demo", "segment what sounds in your own videos"),
    "archive": ("predict_archive", "the same in an archive of many, on one machine or on Ray's"),
    "web": ("web_demo", "the same on a page in the browser"),
    "quickstart": ("quickstart", "compose data, train a small model, evaluate and draw: make demo"),
    "compose": ("compose_avs", "compose clips with exact ground truth"),
    "realsound": ("compose_realsound", "compose the RealSound benchmark of real recordings"),
    "import": ("import_videos", "videos with annotations of your own as a data set"),
    "annotations": ("convert_annotations", "masks of videos to COCO, YouTube-VIS, CVAT or DAVIS"),
    "check": ("prepare_avsbench", "look through a data set before a training relies on it"),
    "reproduce": ("reproduce", "the paper's tables and figures"),
    "words": (
        "explain_codebook",
        "a page to hear and see what each word of the codebook stands for",
    ),
    "benchmark": ("benchmark", "speed and memory"),
    "export": ("export_onnx", "a trained model as one ONNX file"),
    "convert": ("convert_weights", "published pre-trained weights for MODEL.WEIGHTS"),
}
"""Module and purpose of each."""


def main(argv: list[str] | None = None) -> int | None:
    """Run the command that the first argument names.

    Args:
        argv: of the command line, without the program's name; None for the process's own.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name not in COMMANDS:
        lines = "\n".join(f"  {key:12}{purpose}" for key, (_, purpose) in COMMANDS.items())
        usage = f"usage: qdformer <command> [--help] ...\n\n{lines}"
        if name in ("-h", "--help"):
            print(usage)
            return 0
        print(f"qdformer: there is no command {name!r}\n{usage}", file=sys.stderr)
        return 2
    module, _ = COMMANDS[name]
    sys.argv[0] = f"qdformer {name}"  # for the usage lines
    if name == "eval":
        rest = ["--eval-only", *rest]
    return importlib.import_module(f"qdformer.commands.{module}").main(rest)


if __name__ == "__main__":
    sys.exit(main())
