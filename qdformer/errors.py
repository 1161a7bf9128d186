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


_OWN_LINE = re.compile(r"^qdformer\.[\w.]+: ")


def is_input_error(error: Exception) -> bool:
    """Whether an error is an :class:`InputError`, or another process's text of one."""
    return isinstance(error, InputError) or _OWN_LINE.match(_last_line(error)) is not None


def sentence(error: Exception) -> str:
    """The sentence of an error, also of one that another process wrapped in a traceback."""
    return _OWN_LINE.sub("", _last_line(error))


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


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
