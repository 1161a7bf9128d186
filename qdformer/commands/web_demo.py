"""Segment what sounds in your own videos in the browser.

web_demo.py --weights model_final.safetensors [KEY VALUE ...]

The page is for this machine alone, unless --host says otherwise.
"""

import argparse
import logging
import sys

from qdformer.commands import runner
from qdformer.demo.command_line import add_model_options, load_predictor
from qdformer.demo.web_server import serve
from qdformer.dependencies import check_dependencies


def _run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    serve(
        load_predictor(args),
        args.host,
        args.port,
        lambda address: print(f"Open {address} in a browser; Ctrl-C ends it.", flush=True),
        args.allow_host,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runner.add_import_flag(result)
    result.add_argument("--host", default="127.0.0.1", help="another lets others use the page")
    result.add_argument(
        "--allow-host", nargs="+", default=(), help="names by which others open the page"
    )
    result.add_argument("--port", type=int, default=7860)
    add_model_options(result)
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line; see :func:`qdformer.commands.runner.run`."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        check_dependencies(["gradio"])
    except ImportError as error:
        sys.exit(str(error))
    runner.run("web_demo", parser(), _run, argv)


if __name__ == "__main__":
    main()
