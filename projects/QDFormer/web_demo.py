"""Segment what sounds in your own videos in the browser.

web_demo.py --weights model_final.pth [KEY VALUE ...]

The page is for this machine alone, unless --host says otherwise.
"""

import argparse
import logging
import sys

# First: makes Detectron2 importable and registers the models.
import qdformer.qdformer  # noqa: F401
from qdformer.demo.command_line import add_model_options, load_predictor
from qdformer.demo.web_server import serve
from qdformer.dependencies import check_dependencies
from qdformer.errors import InputError, sentence


def main(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    serve(
        load_predictor(args),
        args.host,
        args.port,
        lambda address: print(f"Open {address} in a browser; Ctrl-C ends it.", flush=True),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--host", default="127.0.0.1", help="another lets others use the page")
    result.add_argument("--port", type=int, default=7860)
    add_model_options(result)
    return result


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        check_dependencies(["gradio"])
        main(parser().parse_args())
    except InputError as error:
        sys.exit(f"web_demo.py: {sentence(error)}")
    except ImportError as error:
        sys.exit(str(error))
