"""Checkpoints on the Hugging Face Hub: ``hf://owner/name``."""

from __future__ import annotations

import re

from qdformer.errors import InputError

PREFIX, FILE = "hf://", "model_final.safetensors"

_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([\w./-]+))?(?:@([\w./-]+))?")


def local_file(path: str) -> str:
    """The path of a file on this machine, fetched once from the Hub where it is one of the Hub.

    Args:
        path: a path, which is given back; or ``hf://owner/name[/file][@revision]``, by default the
            file ``model_final.safetensors``. Where it lies and which address is asked are
            huggingface_hub's affair (``HF_HOME``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``).

    Raises:
        InputError: the address is none, is not of a ``.safetensors``, or cannot be fetched.
    """
    if not path.startswith(PREFIX):
        return path
    address = _ADDRESS.fullmatch(path)
    if address is None:
        raise InputError(
            f"{path}: is no address on the Hub; give hf://owner/name[/file][@revision]"
        )
    repository, file, revision = address[1], address[2] or FILE, address[3]
    if not file.endswith(".safetensors"):
        raise InputError(
            f"{path}: from the Hub only .safetensors are taken, which run no code; give one"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(f"{path}: to fetch it, `pip install huggingface_hub`") from error
    try:
        return hf_hub_download(repository, file, revision=revision)
    except Exception as error:  # of the Hub's, of the network's and of the disk's
        told = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: cannot be fetched ({told}); mend the address or connection, or give a file"
        ) from error
