"""The one error that is the user's to mend."""

import re
import tempfile
from pathlib import Path


class InputError(ValueError):
    """Something handed in from outside cannot be used: a path, a file's content, a config key.

    The message is one sentence that names the file or key, what was found, what is allowed and what
    to do. The commands print it without a traceback; libraries that use the package catch it as a
    ``ValueError``.
    """


_OWN_LINE = re.compile(r"^qdformer\.[\w.]+: ", re.MULTILINE)


def is_input_error(error: Exception) -> bool:
    """Whether an error is an :class:`InputError`, or another process's text of one."""
    last = str(error).strip().rpartition("\n")[2]
    return isinstance(error, InputError) or _OWN_LINE.match(last) is not None


def one_line_message(error: Exception) -> str:
    """The sentence of an error, also of one that another process wrapped in a traceback."""
    # On one line, whatever the names in it hold.
    return " ".join(_OWN_LINE.split(str(error))[-1].splitlines())


def make_folder(folder: str | Path, given: str) -> None:
    """Make a folder for results, before any work is done for them.

    Args:
        folder: may be there already; "" is the current one.
        given: how the message begins, which goes on "cannot be written".

    Raises:
        InputError: it cannot be made, or no file in it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder or None).close()
    except OSError as error:
        raise InputError(
            f"{given} cannot be written ({error.strerror}); choose another folder"
        ) from error
