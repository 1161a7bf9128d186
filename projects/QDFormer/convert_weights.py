"""Make published pre-trained weights into what MODEL.WEIGHTS or MODEL.AUDIO.WEIGHTS load.

convert_weights.py swin_tiny_patch4_window7_224.pth output/swin_t.safetensors

Known are ResNet-50 (torchvision; Detectron2's MSRA R-50.pkl), Swin-T (Microsoft or timm), PVT-v2-B2
and -B5 (official or timm) and VGGish (torchvggish). Nothing in the file is executed.
"""

import argparse
import sys

# First: makes Detectron2 importable and registers the models.
import qdformer.qdformer  # noqa: F401
from qdformer.engine.convert_weights import convert_weights, write_weights
from qdformer.errors import InputError, sentence


def main(args: argparse.Namespace) -> None:
    """Convert, write, and say what was not used and how to load the result."""
    converted = convert_weights(args.input, model=args.to)
    write_weights(converted.weights, args.output)
    print(converted.report(args.output))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("input", help="the published file")
    result.add_argument("output", help="a .safetensors to write")
    result.add_argument(
        "--to",
        default="",
        help="r50, swin_t, pvt_v2_b2, pvt_v2_b5 or vggish; as found if not given",
    )
    return result


if __name__ == "__main__":
    try:
        main(parser().parse_args())
    except InputError as error:
        sys.exit(f"convert_weights.py: {sentence(error)}")
