"""Unpickles numbers, arrays and tensors, and has no way to do anything else.

A pickle is a program, and Python's unpickler imports and calls what it names. This one imports
nothing: it carries out the instructions that put data together, and a call only where ``_CALLS``
says what is done instead.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

_KEYS = (type(None), bool, int, float, str, bytes)
_ATOMS = (*_KEYS, bytearray, complex, np.ndarray, Tensor)
_NUMBERS = re.compile(r"[biufc]\d{1,2}")
_ARRAY = "numpy.ndarray"


def read_pickle(file: BinaryIO) -> Any:
    """Reads a pickle of any protocol, also one of Python 2, without executing what it contains.

    Args:
        file: open for reading bytes; read to its end, also behind the pickle.

    Returns:
        dicts (keyed by strings and numbers), lists, tuples, strings, bytes, numbers, numpy arrays
        and scalars of numbers, and dense torch tensors. Strings of Python 2 are taken as latin-1,
        ordered dicts become dicts; tensors and parameters become tensors on the CPU that need no
        gradient. Arrays and tensors have no more elements than the file holds.

    Raises:
        pickle.UnpicklingError: anything else is in it, which is named, or it is damaged.
    """
    data = file.read()
    try:
        return _Reader(len(data)).run(data)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle fails with any type at all
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise pickle.UnpicklingError(f"it is damaged: {reason}") from error


@dataclass(frozen=True)
class _Name:
    """A name that the pickle refers to, which is never imported."""

    name: str


@dataclass(eq=False)
class _NumberType:
    """A numpy dtype, whose byte order follows later."""

    dtype: np.dtype


@dataclass(eq=False)
class _EmptyArray:
    """A numpy array whose content follows later, and where the memo keeps it."""

    places: list[int] = field(default_factory=list)


def _require(valid: Any, problem: str) -> None:
    if not valid:
        raise pickle.UnpicklingError(problem)


class _Reader:
    """The stack machine for a pickle of ``size`` bytes, with the instructions for data only."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # A pickle can name the same bytes again and again, each time for another copy. One that
        # Python wrote has them copied twice: from text to bytes, and from there to an array.
        self.copies_left = 2 * size

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _GATHER:
                number, put = _GATHER[opcode.name]
                values = self._from_mark() if number is None else self._last(number)
                put(self.stack, values)
            elif opcode.name not in _WITHOUT_EFFECT:
                self._follow(opcode.name, argument)
        (result,) = self.stack
        _check_types(result)
        return result

    def _follow(self, instruction: str, argument: Any) -> None:
        stack, memo = self.stack, self.memo
        match instruction:
            case "MARK":
                self.marks.append(len(stack))
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                place = len(memo) if instruction == "MEMOIZE" else argument
                memo[place] = stack[-1]
                if type(stack[-1]) is _EmptyArray:
                    stack[-1].places.append(place)
            case "GLOBAL" | "STACK_GLOBAL":
                self._refer(*(argument.split(" ", 1) if argument else self._last(2)))
            case "REDUCE":
                self._call(*self._last(2))
            case "BUILD":
                self._build(*self._last(2))
            case _:
                raise pickle.UnpicklingError(f"it uses {instruction}, which makes no data")

    def _last(self, number: int) -> list[Any]:
        self.marks.append(len(self.stack) - number)
        return self._from_mark()

    def _from_mark(self) -> list[Any]:
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _refer(self, module: str, name: str) -> None:
        # Python 2 and numpy 1 have other names for the same.
        module = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        path = f"{module}.{name}"
        problem = f"it refers to {path[:80]}, which is neither an array nor a tensor"
        _require(path in _CALLS or path == _ARRAY, problem)
        self.stack.append(_Name(path))

    def _call(self, function: Any, arguments: Any) -> None:
        called = type(function) is _Name and type(arguments) is tuple
        make: Any = _CALLS.get(function.name) if called else None
        _require(bool(make), f"it calls {function.name if called else type(function).__name__}")
        self.stack.append(make(self, *arguments))

    def _build(self, target: Any, state: Any) -> None:
        if type(target) is _EmptyArray:
            _, shape, number_type, fortran, raw = state
            array = self.array(raw, number_type, shape, "F" if fortran else "C")
            self.memo.update(dict.fromkeys(target.places, array))
            target = array
        elif type(target) is _NumberType:
            _require(not any(state[2:5]), "it has an array of records or objects")
            target.dtype = target.dtype.newbyteorder(state[1])
        else:
            # Attributes, such as the versions beside a network's weights, are no data.
            problem = f"it sets attributes of {type(target).__name__}"
            _require(type(target) in (dict, Tensor), problem)
        self.stack.append(target)

    def copy(self, size: int) -> None:
        """To be called before ``size`` bytes, or items, are copied."""
        self.copies_left -= size
        _require(self.copies_left >= 0, "it claims more data than it holds")

    def array(
        self, raw: Any, number_type: Any, shape: Any, order: str = "C", axes: Any = None
    ) -> np.ndarray:
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's bytes
        _require(isinstance(raw, bytes | bytearray), "it has an array without data")
        _require(type(number_type) is _NumberType, "it has an array without a type of number")
        _check_shape(shape, len(raw) // number_type.dtype.itemsize)
        self.copy(len(raw))
        flat = np.frombuffer(raw, number_type.dtype).astype(number_type.dtype.newbyteorder("="))
        if axes is not None:
            return flat.reshape(shape).transpose(axes)
        return flat.reshape(shape, order=order)  # type: ignore[call-overload]


def _append(target: Any, values: list[Any]) -> None:
    _require(type(target) is list, "it appends to what is no list")
    target.extend(values)


def _set_items(target: Any, values: list[Any]) -> Any:
    _require(type(target) is dict, "it sets items of what is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        # The hash of a tuple in a tuple in a tuple ... overflows the stack of the process.
        _require(type(key) in _KEYS, f"it has a key of type {type(key).__name__}")
        target[key] = value
    return target


def _check_shape(shape: Any, available: int) -> None:
    valid = type(shape) is tuple and all(type(size) is int and size >= 0 for size in shape)
    _require(valid, "it has an array or tensor of no valid shape")
    # In Python's integers: those of 64 bits would wrap around.
    _require(math.prod(shape) <= available, f"it claims the shape {str(shape)[:80]} for less data")


def _check_types(result: Any) -> None:
    """Names, and arrays that were only begun, are no data."""
    seen, left = set(), [result]
    while left:
        value = left.pop()
        if type(value) not in (dict, list, tuple):
            valid = type(value) in _ATOMS or isinstance(value, np.generic)
            _require(valid, f"it holds {getattr(value, 'name', 'an unfinished array')}")
        elif id(value) not in seen:
            seen.add(id(value))
            left.extend(value.values() if type(value) is dict else value)


def _number_type(reader: _Reader, code: Any, *_: Any) -> _NumberType:
    valid = isinstance(code, str) and _NUMBERS.fullmatch(code)
    _require(valid, f"it has an array of {str(code)[:20]!r}, which are no numbers")
    return _NumberType(np.dtype(code))


def _empty_array(reader: _Reader, kind: Any, *_: Any) -> _EmptyArray:
    _require(kind == _Name(_ARRAY), "it has an array of another type than numpy's own")
    return _EmptyArray()


def _encode(reader: _Reader, text: str, _encoding: str) -> bytes:
    reader.copy(len(text))
    return text.encode("latin1")


def _dict(reader: _Reader, pairs: Any = ()) -> dict:
    reader.copy(len(pairs))
    return _set_items({}, [part for key, value in pairs for part in (key, value)])


def _storage(reader: _Reader, raw: bytes) -> Tensor:
    """All of a storage in one row."""
    reader.copy(len(raw))
    # torch uses its older format here; the newer one could be compressed, and grow without bound.
    _require(not raw.startswith(b"PK"), "it has a tensor in an archive")
    try:
        storage = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # whose message advises to load it without restriction
        raise ValueError("the storage of a tensor") from error
    _require(isinstance(storage, torch.TypedStorage), "it has a tensor without a storage")
    row = torch.empty(0, dtype=storage.dtype).set_(storage)
    _require(row.nbytes <= len(raw), "it claims more data than it holds")
    return row


def _tensor(reader: _Reader, row: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    _check_shape(size, row.numel())
    return row.as_strided(size, stride, offset)


_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": _dict,
    # How pickle protocols up to 2 write bytes, and none of them.
    "_codecs.encode": _encode,
    "builtins.bytes": lambda reader: b"",
    "numpy.dtype": _number_type,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": lambda reader, kind, raw: reader.array(raw, kind, (1,))[0],
    "numpy.core.numeric._frombuffer": _Reader.array,
    # torch's own function of this name unpickles without restriction.
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda reader, tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda reader, tensor, *_: tensor,
}

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_GATHER: dict[str, tuple[int | None, Callable[[list[Any], list[Any]], None]]] = {
    "NONE": (0, lambda stack, _: stack.append(None)),
    "NEWTRUE": (0, lambda stack, _: stack.append(True)),
    "NEWFALSE": (0, lambda stack, _: stack.append(False)),
    "EMPTY_TUPLE": (0, lambda stack, _: stack.append(())),
    **{
        name: (number, lambda stack, values: stack.append(tuple(values)))
        for name, number in (("TUPLE", None), ("TUPLE1", 1), ("TUPLE2", 2), ("TUPLE3", 3))
    },
    "EMPTY_LIST": (0, lambda stack, values: stack.append(values)),
    "LIST": (None, lambda stack, values: stack.append(values)),
    "APPEND": (1, lambda stack, values: _append(stack[-1], values)),
    "APPENDS": (None, lambda stack, values: _append(stack[-1], values)),
    "EMPTY_DICT": (0, lambda stack, _: stack.append({})),
    "DICT": (None, lambda stack, values: stack.append(_set_items({}, values))),
    "SETITEM": (2, lambda stack, values: _set_items(stack[-1], values)),
    "SETITEMS": (None, lambda stack, values: _set_items(stack[-1], values)),
}
"""How many values an instruction takes off the stack (None: as far as the mark), and what next."""
_WITHOUT_EFFECT = {"PROTO", "FRAME", "STOP"}
