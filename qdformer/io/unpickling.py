"""Unpickles numbers, arrays and tensors.

A pickle is a program that calls what it names. Here it can name what makes up numbers, arrays and
tensors, in versions of our own that take nothing else: so it runs no code and opens no file. It can
still ask for more memory than there is; weights of strangers come as safetensors.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

_ATOMS = (type(None), bool, int, float, str, bytes, bytearray, complex)
_NUMBERS = re.compile(r"[biufc]\d{1,2}")


def read_pickle(file: BinaryIO) -> Any:
    """Reads a pickle of any protocol, also one of Python 2, without executing what it contains.

    Args:
        file: open for reading bytes; read to its end.

    Returns:
        dicts, lists and tuples of strings (those of Python 2 are taken as latin-1), numbers, numpy
        arrays and scalars of numbers, and dense torch tensors, which need no gradient.

    Raises:
        pickle.UnpicklingError: anything else is in it, which is named, or it is damaged.
    """
    data = file.read()
    try:
        # Python's memo grows to any place that is named, which a damaged byte can make enormous.
        for opcode, place, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(place or 0) > len(data):
                raise ValueError(f"its memo has a place {place}")
        return _finished(_Unpickler(io.BytesIO(data), encoding="latin1").load())
    except _Refused:
        raise
    except Exception as error:  # a damaged pickle fails with any type at all
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise pickle.UnpicklingError(f"it is damaged: {reason}") from error


class _Refused(pickle.UnpicklingError):
    pass


def _require(valid: Any, problem: str) -> None:
    if not valid:
        raise _Refused(problem)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Python 2 and numpy 1 have other names for the same.
        module = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        path = f"{module}.{name}"
        _require(
            path in _CALLS, f"it refers to {path[:80]}, which is neither an array nor a tensor"
        )
        return _CALLS[path]


class _Dict(dict):
    """An ordered dict; its attributes, such as versions beside a network's weights, are no data."""

    def __setstate__(self, state: Any) -> None:
        pass


class _NumberType:
    """A numpy dtype of plain numbers; its state says no more than their byte order."""

    def __init__(self, code: str, *_: Any):
        valid = isinstance(code, str) and _NUMBERS.fullmatch(code)
        _require(valid, f"it has an array of {str(code)[:20]!r}, which are no numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _require(not any(state[2:5]), "it has an array of records or objects")
        self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, raw: Any, shape: tuple, order: Any) -> np.ndarray:
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's bytes
        return np.frombuffer(raw, self.dtype).reshape(shape, order=order).copy()


class _Array:
    """A numpy array, whose content is its state."""

    array: np.ndarray

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, numbers, fortran, raw = state
        self.array = _numbers(numbers).array(raw, shape, "F" if fortran else "C")


def _numbers(value: Any) -> _NumberType:
    _require(type(value) is _NumberType, "it has an array without a type of number")
    return value


def _scalar(numbers: Any, raw: Any) -> Any:
    return _numbers(numbers).array(raw, (1,), "C")[0]


def _from_buffer(raw: Any, numbers: Any, shape: tuple, order: str, axes: Any = None) -> _Array:
    made = _Array()
    made.array = _numbers(numbers).array(raw, shape, "C" if axes else order)
    made.array = made.array.transpose(axes) if axes else made.array
    return made


def _storage(raw: bytes) -> Any:
    # torch's own function of this name unpickles without restriction.
    try:
        return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # whose message advises to load it without restriction
        raise ValueError("the storage of a tensor") from error


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    if math.prod(size) > storage.size():
        raise ValueError(f"the shape {size} for {storage.size()} numbers")
    return torch.empty(0, dtype=storage.dtype).set_(storage, offset, size, stride)


def _tensor_of_array(made: Any) -> Tensor:
    _require(type(made) is _Array, "it has a tensor of what is no array")
    return torch.from_numpy(made.array.astype(np.float32))


def _finished(value: Any) -> Any:
    """Containers, arrays and tensors as they are to be used, and nothing else."""
    if isinstance(value, dict):
        return {_atom(key): _finished(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_finished, value))
    if type(value) is _Array:
        _require(hasattr(value, "array"), "it has an array without content")
        return value.array
    return value.detach() if type(value) is Tensor else _atom(value)


def _atom(value: Any) -> Any:
    valid = type(value) in _ATOMS or isinstance(value, np.generic)
    _require(valid, f"it holds {type(value).__name__}, which is no data")
    return value


_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": _Dict,
    # How pickle protocols up to 2 write bytes, and none of them.
    "_codecs.encode": lambda text, _encoding: text.encode("latin1"),
    "builtins.bytes": lambda: b"",
    "numpy.dtype": _NumberType,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "torch.Tensor": _tensor_of_array,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
