"""What weight files hold, read without executing anything that they contain."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from qdformer.checkpoint.hub import local_file
from qdformer.checkpoint.tflite_weights import read_convolutions
from qdformer.errors import InputError, make_folder
from qdformer.io.atomic_write import atomic_write
from qdformer.io.unpickling import read_pickle

MAX_DESCRIPTION = 2**16
"""Characters of the description in a file of safetensors."""

_EXPECTED = (
    "expected a .safetensors or a .pth of tensors such as this project writes, or Detectron2's "
    ".pkl of a backbone"
)


def read_weights(path: str) -> dict[str, Any]:
    """Reads a checkpoint or a file of weights, without executing what it contains.

    Args:
        path: of a file, or ``hf://owner/name``, see :func:`.hub.local_file`. ``*.safetensors`` is
            the form for files from elsewhere, which need no more memory than they are large;
            ``*.pkl`` of Detectron2 or Caffe2; ``*.tflite``, see
            :func:`.tflite_weights.read_convolutions`; anything else is a file of ``torch.save``, of
            which the newer format (a zip file) is verified by its checksums.

    Returns:
        What the file holds, with at least ``model``: names and tensors, or arrays. A plain dict of
        them becomes ``{"model": dict}``; safetensors may come with a ``description``; a ``.pkl``
        that is not Detectron2's own gets ``__author__`` "Caffe2" and ``matching_heuristics``, as
        :class:`detectron2.checkpoint.DetectionCheckpointer` does.

    Raises:
        InputError: there is no such file, it is damaged, or it holds anything else.
    """
    path = local_file(path)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; {_EXPECTED}")
    try:
        loaded = _read(path)
        _check_model(loaded["model"])
    except InputError:
        raise
    except Exception as error:  # readers of damaged files fail with any type at all
        raise InputError(f"{path}: cannot be used as weights: {_reason(error)}; {_EXPECTED}") from (
            error
        )
    return loaded


def write_weights(
    weights: dict[str, Tensor], path: str | Path, description: dict[str, Any] | None = None
) -> None:
    """Writes a ``.safetensors``, whole or not at all.

    Args:
        weights: names and tensors.
        path: its folder is made.
        description: what JSON can hold, see :func:`qdformer.checkpoint.metadata.run_metadata`.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are written as .safetensors; give a file of that ending")
    make_folder(path.parent, f"{path}: its folder")
    metadata = {"format": "pt"}
    if description:
        metadata["description"] = json.dumps(description)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(safetensors.torch.save(tensors, metadata))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room or choose another file"
        ) from error


def _read(path: str) -> dict[str, Any]:
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    if path.endswith(".tflite"):
        return {"model": read_convolutions(path)}
    with open(path, "rb") as file:
        archive = file.read(4) == b"PK\3\4"
    if archive:
        _verify(path)
    elif path.endswith(".pkl"):
        return _read_pkl(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    _require(isinstance(loaded, dict), f"it holds {type(loaded).__name__}, not a dict")
    return loaded if "model" in loaded else {"model": loaded}


def _read_safetensors(path: str) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        loaded: dict[str, Any] = {"model": {name: file.get_tensor(name) for name in file.keys()}}
        text = (file.metadata() or {}).get("description")
    if text is not None:
        _require(len(text) <= MAX_DESCRIPTION, f"its description has {len(text)} characters")
        loaded["description"] = json.loads(text)
    return loaded


def _read_pkl(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        loaded = read_pickle(file)
    _require(isinstance(loaded, dict), f"it holds {type(loaded).__name__}, not a dict")
    if "model" in loaded and "__author__" in loaded:
        return loaded
    weights = loaded.get("blobs", loaded)
    _require(isinstance(weights, dict), f"its blobs are {type(weights).__name__}, not a dict")
    # What an optimizer kept beside each weight.
    weights = {name: v for name, v in weights.items() if not str(name).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _verify(path: str) -> None:
    """Refuses an archive that is damaged, which torch would not notice, or that unpacks to more."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        size = sum(entry.file_size for entry in entries)
        _require(
            stored and size <= Path(path).stat().st_size, "it is an archive that unpacks to more"
        )
        damaged = archive.testzip()
    _require(damaged is None, f"it is damaged, its part {damaged} has another checksum")


def _check_model(model: Any) -> None:
    _require(isinstance(model, dict), f"its model is {type(model).__name__}, not a dict")
    for name, value in model.items():
        _require(isinstance(name, str), f"its model has a weight named {str(name)[:80]}")
        numbers = isinstance(value, Tensor) or (
            isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        )
        _require(numbers, f"its {name[:80]} is {type(value).__name__}, not a tensor of numbers")


def _require(valid: bool, problem: str) -> None:
    if not valid:
        raise ValueError(problem)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if refused := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it refers to {refused[1][:80]}, which is no tensor"
    # torch wraps its reason in advice to load the file without restriction.
    text = text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0]
    return text[:200] or type(error).__name__


def all_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether no value of any of the tensors is NaN or infinite."""
    # One answer for all, because each would wait for the device.
    return bool(torch.stack([value.isfinite().all() for value in tensors.values()]).all())
