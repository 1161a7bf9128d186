"""What weight files hold, read without executing anything that they contain."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from qdformer.errors import InputError
from qdformer.io.unpickling import read_pickle

_EXPECTED = (
    "expected a .pth of tensors such as this project writes, a .safetensors, or Detectron2's .pkl "
    "of a backbone"
)
_NUMBERS = {
    *("float16", "bfloat16", "float32", "float64"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
}


def read_weights(path: str) -> dict[str, Any]:
    """Reads a checkpoint or a file of weights.

    Args:
        path: ``*.safetensors``; ``*.pkl`` of Detectron2 or Caffe2; anything else is a file of
            ``torch.save``, of which the newer format (a zip file) is verified by its checksums.

    Returns:
        What the file holds, with at least ``model``: names and dense tensors, or arrays, of real
        numbers, none with more elements than the file holds. A plain dict of them becomes
        ``{"model": dict}``; a ``.pkl`` that is not Detectron2's own gets ``__author__`` "Caffe2"
        and ``matching_heuristics``, as :class:`detectron2.checkpoint.DetectionCheckpointer` does.

    Raises:
        InputError: there is no such file, it is damaged, or it holds anything else.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; {_EXPECTED}")
    try:
        loaded = _read(path)
        _check_model(loaded["model"])
        _check_tensors(loaded, Path(path).stat().st_size)
    except Exception as error:  # readers of damaged files fail with any type at all
        raise InputError(f"{path}: cannot be used as weights: {_reason(error)}; {_EXPECTED}") from (
            error
        )
    return loaded


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        archive = file.read(4) == b"PK\3\4"
    if archive:
        _verify(path)
    elif path.endswith(".safetensors"):
        return {"model": safetensors.torch.load(Path(path).read_bytes())}
    elif path.endswith(".pkl"):
        return _read_pkl(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    _require(isinstance(loaded, dict), f"it holds {type(loaded).__name__}, not a dict")
    return loaded if "model" in loaded else {"model": loaded}


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
    attributes = dict(getattr(model, "__dict__", {}))
    metadata = attributes.pop("_metadata", {})
    versions = [info.get("version", 1) for info in metadata.values()]
    valid = not attributes and all(type(version) in (int, type(None)) for version in versions)
    _require(valid, "its model has attributes that are no versions of modules")
    for name, value in model.items():
        _require(isinstance(name, str), f"its model has a weight named {str(name)[:80]}")
        valid = isinstance(value, Tensor | np.ndarray)
        _require(valid, f"its {name[:80]} is {type(value).__name__}, not a tensor")


def _check_tensors(loaded: dict[str, Any], size: int) -> None:
    """Also refuses views that repeat one element, and storages that are larger than the file."""
    storages = {}
    for value in _leaves(loaded):
        if isinstance(value, Tensor):
            plain = type(value) in (Tensor, torch.nn.Parameter) and not vars(value)
            dense = value.layout == torch.strided and value.device.type == "cpu"
            _require(plain and dense, "it holds a tensor that is not a plain dense one")
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            _require(value.nbytes <= storage.nbytes(), "it holds a tensor of repeated elements")
        if isinstance(value, Tensor | np.ndarray):
            kind = str(value.dtype).removeprefix("torch.")
            _require(kind in _NUMBERS, f"it holds a tensor of {kind}")
    _require(sum(storages.values()) <= size, "it claims more data than it holds")


def _leaves(loaded: dict[str, Any]) -> Iterator[Any]:
    seen, left = set(), [loaded]
    while left:
        value = left.pop()
        if not isinstance(value, dict | list | tuple):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            left.extend(dict.values(value) if isinstance(value, dict) else value)


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
