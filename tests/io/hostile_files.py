"""Tables of files that try to run code, or to have files read that lie elsewhere.

Code that runs makes the file ``marker``. Files outside of a data set must not be opened.
"""

import contextlib
import csv
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from qdformer.audio.log_mel import read_log_mel
from qdformer.checkpoint.weights import read_weights
from qdformer.config.loading import load_config

NEW_PROTOCOL = b"\x80\x04"


def values(*objects) -> bytes:
    """Instructions of a pickle that push the objects, one after the other."""
    return b"".join(pickle.dumps(value, 1)[:-1] for value in objects)


def name(path: str) -> bytes:
    module, _, function = path.rpartition(".")
    return f"c{module}\n{function}\n".encode()


def call(path: str, *arguments) -> bytes:
    return name(path) + b"(" + values(*arguments) + b"tR"


def python(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


def shell(marker: Path) -> str:
    return f"touch {marker}"


def system(marker: Path) -> bytes:
    return call("os.system", shell(marker))


def memory_map(marker: Path) -> bytes:
    """Its name and arguments; it makes the file that it maps."""
    return name("numpy.memmap") + b"(" + values(str(marker), "u1", "w+", 0, 1) + b"t"


ARRAY = name("numpy.core.multiarray._reconstruct") + b"("
CODE: dict[str, Callable[[Path], bytes]] = {
    "os.system": system,
    "posix.system": lambda marker: call("posix.system", shell(marker)),
    "builtins.exec": lambda marker: call("builtins.exec", python(marker)),
    "builtins.eval": lambda marker: call("builtins.eval", python(marker)),
    "__builtin__.eval": lambda marker: call("__builtin__.eval", python(marker)),
    "builtins.open": lambda marker: call("builtins.open", str(marker), "w"),
    "posix.open": lambda marker: call("posix.open", str(marker), os.O_CREAT),
    "os.mkdir": lambda marker: call("os.mkdir", str(marker)),
    "subprocess.check_call": lambda marker: call("subprocess.check_call", shell(marker).split()),
    "subprocess.getoutput": lambda marker: call("subprocess.getoutput", shell(marker)),
    "shutil.copy": lambda marker: call("shutil.copy", __file__, str(marker)),
    "numpy.memmap": lambda marker: memory_map(marker) + b"R",
    "torch.load": lambda marker: call("torch.storage._load_from_bytes", system(marker) + b"."),
    "pickle.loads": lambda marker: call("pickle.loads", system(marker) + b"."),
    "a dotted name": lambda marker: (
        NEW_PROTOCOL
        + values("pathlib", "Path.touch")
        + b"\x93"
        + call("pathlib.Path", str(marker))
        + b"\x85R"
    ),
    "STACK_GLOBAL": lambda marker: (
        NEW_PROTOCOL + values("os", "system") + b"\x93" + values(shell(marker)) + b"\x85R"
    ),
    "INST": lambda marker: b"(" + values(shell(marker)) + b"isubprocess\ngetoutput\n",
    "OBJ": lambda marker: b"(" + name("subprocess.getoutput") + values(shell(marker)) + b"o",
    "NEWOBJ": lambda marker: memory_map(marker) + b"\x81",
    "NEWOBJ_EX": lambda marker: memory_map(marker) + b"}\x92",
    "a value of a dict": lambda marker: b"}" + values("weight") + system(marker) + b"s",
    "a key of a dict": lambda marker: b"}" + system(marker) + b"K\x01s",
    "what is thrown away": lambda marker: system(marker) + b"0}",
    "the shape of an array": lambda marker: (
        ARRAY + name("numpy.ndarray") + system(marker) + b"\x85" + values(b"b") + b"tR"
    ),
    "the class of an array": lambda marker: (
        ARRAY + memory_map(marker) + b"R0" + name("numpy.matrix") + values((0,), b"b") + b"tR"
    ),
    "the state of an array": lambda marker: (
        ARRAY + name("numpy.ndarray") + values((0,), b"b") + b"tR" + system(marker) + b"0"
    ),
    "the content of an array of objects": lambda marker: (
        ARRAY
        + name("numpy.ndarray")
        + values((0,), b"b")
        + b"tR(K\x01K\x01\x85"
        + call("numpy.dtype", "O8", False, True)
        + b"\x89]"
        + system(marker)
        + b"atb"
    ),
}
"""Instructions that leave one value on the stack; Python's own unpickler obeys all of them."""


def write_pickle(path: Path, instructions: bytes) -> None:
    path.write_bytes(instructions + b".")


def write_weights_in_pickle(path: Path, instructions: bytes) -> None:
    start = b"}(" + values("__author__", "someone", "model")
    write_pickle(path, start + instructions + b"u")


def write_archive(path: Path, instructions: bytes) -> None:
    """As ``torch.save`` does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + instructions + b".")
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")


def write_old_archive(path: Path, instructions: bytes) -> None:
    """As ``torch.save`` did."""
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in header) + instructions + b".")


PICKLES = {
    "weights.pkl": (write_weights_in_pickle, read_weights),
    "momentum.pkl": (write_pickle, read_weights),
    "weights.pth": (write_archive, read_weights),
    "archive.pkl": (write_archive, read_weights),
    "old.pth": (write_old_archive, read_weights),
    "pickle.pth": (write_pickle, read_weights),
    "pickle.safetensors": (write_pickle, read_weights),
    "log_mel.pkl": (write_pickle, read_log_mel),
}
"""Every place where a pickle is read: a file's name, how it is written and what reads it."""

CONFIGS: dict[str, Callable[[Path], str]] = {
    "apply.yaml": lambda marker: f"!!python/object/apply:os.system ['{shell(marker)}']",
    "value.yaml": lambda marker: (
        f"SEED: !!python/object/apply:subprocess.getoutput ['{shell(marker)}']"
    ),
    "new.yaml": lambda marker: f"!!python/object/new:subprocess.Popen [[touch, '{marker}']]",
    "name.yaml": lambda marker: "OUTPUT_DIR: !!python/name:os.system",
    "eval.yaml": lambda marker: f"SEED: \"open({str(marker)!r}, 'w')\"",
    "config.py": lambda marker: python(marker),
}
"""Config files by their names."""


def read_config(path: Path) -> None:
    load_config(str(path), [])


def _edit_table(base: Path, column: int, value: str) -> None:
    table = base / "s4_meta_data.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    rows[1][column] = value
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(rows)


TREES: dict[str, Callable[[Path, Path], None]] = {
    **{
        f"{value} as {field}": lambda base, outside, column=column, value=value: _edit_table(
            base, column, value.format(outside=outside)
        )
        for field, column in (("name", 0), ("category", 2), ("split", 3))
        for value in ("{outside}", "..", "../..", "../../outside", "a/../..", "/", "x\0y", "x\ny")
    },
}
"""What is done to the tree of S4 in tests/data/conftest.py: its folder, a folder outside of it."""

TABLES: dict[str, bytes] = {
    "not UTF-8": b"name,start,category,split\n\xff\xfe,0,dog,train\n",
    "a null character": b"name,start,category,split\na\0b,0,dog,train\n",
    "a huge field": b"name,start,category,split\n" + b"x" * 200_000 + b",0,dog,train\n",
    "a long name": b"name,start,category,split\n" + b"x" * 300 + b",0,dog,train\n",
    "an open quote": b'name,start,category,split\n"a,0,dog,train\n' + b"b,0,dog,train\n" * 99,
    "a column twice": b"name,start,category,split,split\na,0,dog,train,val\n",
    "a name twice": b"name,start,category,split\n" + b"".join(
        b"%s,0,%s,train\n" % pair
        for pair in ((b"c", b"a_b"), (b"c", b"x"), (b"b_c", b"a"), (b"b_c", b"x"))
    ),
    "nothing but quotes": b'"' * 1001,
    "no columns": b"\n\n\n",
    "a terminal's escape": b"name,start,category,split\na\x1b[2J,0,dog,train\n",
}  # fmt: skip
"""Lists of S4."""

CLASS_LISTS: dict[str, str] = {
    "deeply nested": "[" * 100_000,
    "a deeply nested object": '{"background": ' * 100_000,
    "an index nested as deep as the parser goes": '{"background": 0, "ape": '
    + "[" * 900 + "]" * 900 + "}",
    "a number of many digits": '{"background": 0, "ape": ' + "1" * 5000 + "}",
    "a great number": '{"background": 0, "ape": ' + "1" * 4000 + "}",
    "an infinite number": '{"background": 0, "ape": 1e999}',
    "not a number": '{"background": 0, "ape": NaN}',
    "a list": json.dumps(["background", "ape"]),
    "a string": '"background"',
    "null": "null",
    "a truth value": '{"background": false, "ape": true}',
    "a name twice": '{"background": 0, "ape": 1, "ape": 1}',
    "null as index": '{"background": 0, "ape": null}',
    "nothing": "",
    "a null character": "\0",
}  # fmt: skip
"""Contents of label2idx.json."""

_opened: list[list[str]] = []


def _note(event: str, arguments: tuple) -> None:
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str):
        for paths in _opened:
            paths.append(os.path.realpath(arguments[0]))


@contextlib.contextmanager
def opened_paths() -> Iterator[list[str]]:
    """Collects what this process opens, with links resolved."""
    if not _opened:
        sys.addaudithook(_note)
    _opened.append([])
    yield _opened[-1]
