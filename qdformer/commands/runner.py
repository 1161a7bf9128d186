"""What all commands share: ``--import`` for extensions, and errors as one sentence."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from qdformer.errors import InputError, one_line_message


def add_import_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--import``, by which modules of one's own join the registries.

    Args:
        parser: before its positional arguments are added.
    """
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of your own that registers architectures, data sets, ...; may be repeated",
    )


def import_extensions(modules: Sequence[str]) -> None:
    """Import modules by name, also from the current folder.

    Raises:
        InputError: there is no such module.
    """
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(
                f"--import is {name!r}, which is no dotted name of a module; give my_module for "
                "my_module.py in this folder"
            )
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A module that the extension misses is the extension's own affair.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise InputError(
                f"--import is {name!r}, which Python does not find; give its dotted name, as seen "
                "from this folder or PYTHONPATH"
            ) from error


def run(
    name: str,
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
    intermixed: bool = False,
) -> int | None:
    """Parse a command line, import the extensions and run the command.

    Args:
        name: how its messages begin.
        parser: of the command line.
        body: the command; returns its exit code, or None for 0.
        argv: None for the process's own.
        intermixed: options may stand between positional arguments.

    Raises:
        SystemExit: with a sentence, for an :class:`InputError`.
    """
    args = parser.parse_intermixed_args(argv) if intermixed else parser.parse_args(argv)
    try:
        import_extensions(args.imports)
        return body(args)
    except InputError as error:
        sys.exit(f"{name}: {one_line_message(error)}")
