"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Something handed in from outside cannot be used: a path, a file's content, a config key.

    The message is one sentence that names the file or key, what was found, what is allowed and what
    to do. The commands print it without a traceback; libraries that use the package catch it as a
    ``ValueError``.
    """


def sentence(error: InputError) -> str:
    """The sentence of an error, also of one that a data loader's process wrapped in a traceback."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{__name__}.InputError: ")
