"""Unpickles numbers, arrays and tensors.

A pickle is a program that calls what it names. Here it can name what makes up numbers, arrays and
tensors, and nothing else: so it runs no code and opens no file. It can still ask for more memory
than there is; weights of strangers come as safetensors.
"""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor


def read_pickle(file: BinaryIO) -> Any:
    """Reads a pickle of any protocol, also one of Python 2, without executing what it contains.

    Args:
        file: open for reading bytes; read to its end.

    Returns:
        Containers of strings (those of Python 2 are taken as latin-1), numbers, numpy arrays and
        dense torch tensors, which are on the CPU and need no gradient.

    Raises:
        pickle.UnpicklingError: anything else is in it, which is named, or it is damaged.
    """
    data = file.read()
    try:
        # Python's memo grows to any place that is named, which a damaged byte can make enormous.
        for opcode, place, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(place or 0) > len(data):
                raise ValueError(f"its memo has a place {place}")
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _RefusedName:
        raise
    except Exception as error:  # a damaged pickle fails with any type at all
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise pickle.UnpicklingError(f"it is damaged: {reason}") from error


class _RefusedName(pickle.UnpicklingError):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Python 2 and numpy 1 have other names for the same.
        module = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        path = f"{module}.{name}"
        if path not in _CALLS:
            raise _RefusedName(f"it refers to {path[:80]}, which is neither an array nor a tensor")
        return _CALLS[path]


def _latin1(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")


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


# Their modules have other names in numpy 1 and 2.
_NUMPY: tuple[Any, ...] = (
    np.zeros(1).__reduce__()[0],
    np.float32(0).__reduce__()[0],
    np.zeros(1).__reduce_ex__(5)[0],
)

_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": OrderedDict,
    # How pickle protocols up to 2 write bytes, and none of them.
    "_codecs.encode": _latin1,
    "builtins.bytes": lambda: b"",
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    "numpy.core.multiarray._reconstruct": _NUMPY[0],
    "numpy.core.multiarray.scalar": _NUMPY[1],
    "numpy.core.numeric._frombuffer": _NUMPY[2],
    "torch.Tensor": lambda array: torch.from_numpy(array.astype(np.float32)),
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
