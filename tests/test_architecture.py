"""Rules that no single file can hold: import direction, device and path literals, length."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import qdformer

ROOT = Path(__file__).parents[1]
FOLDERS = ("qdformer", "projects", "datasets", "tests", "install")
PACKAGE = sorted((ROOT / "qdformer").rglob("*.py"))
# Data sets that lie in datasets/ may bring scripts of their own.
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if folder != "datasets" or path.parent == ROOT / "datasets"
)

READERS = {"io", "audio", "data", "evaluation", "visualization"}
MODEL = {"modeling", "layers"}
ALLOWED = {
    "__init__": {"compat", "dependencies", "config", "data", "modeling", "predictor"},
    "compat": set(),
    "dependencies": set(),
    "errors": set(),
    "progress": set(),
    "io": set(),
    "layers": set(),
    "modeling": {"layers"},
    "solver": {"modeling"},
    "audio": {"io"},
    "video": {"io", "audio"},
    "annotations": {"io"},
    "data": {"io", "audio", "annotations"},
    "synthetic": {"io", "audio", "data"},
    "evaluation": {"io", "data", "layers"},
    "visualization": {"io", "audio", "data"},
    "config": {"data", "solver", *MODEL},
    "checkpoint": {"io", "config", *MODEL},
    "export": MODEL,
    "engine": {"config", "checkpoint", "solver", "synthetic", "video", *READERS, *MODEL},
    "predictor": {"io", "audio", "video", "data", "config", "checkpoint", "engine", *MODEL},
    "own_data": {"io", "audio", "video", "annotations", "data", "synthetic"},
    "archive": {"io", "video", "predictor"},
    "demo": {"config", "engine", "predictor", "synthetic", "modeling", "annotations", "video",
             *READERS},
    "reproduction": {"config", "checkpoint", "engine", "synthetic", "layers", *READERS},
    "benchmark": {"config", "engine", "solver", "synthetic", "video", "predictor", "demo", *READERS,
                  *MODEL},
    "commands": {"config", "checkpoint", "video", "engine", "export", "synthetic", "demo",
                 "reproduction", "archive", "annotations", "own_data", "benchmark", "dependencies",
                 "predictor", *READERS, *MODEL},
}  # fmt: skip
"""What each part of the package may import besides itself and `errors`."""


def part(module):
    """The second name of `qdformer.<part>...`, or `__init__` for the package itself."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imported_parts(path):
    """Yields (line, part) of every import of the project, also inside of functions."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            names = [base if part(base) != "__init__" else f"{base}.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "projects":
                yield node.lineno, "projects"
            elif name.split(".")[0] == "qdformer":
                yield node.lineno, part(name)


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_imports_point_one_way(path):
    own = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own in ALLOWED, f"{own} has no place in the import direction yet"
    allowed = ALLOWED[own] | {own, "errors", "progress"}
    wrong = [f"line {line}: {name}" for line, name in imported_parts(path) if name not in allowed]
    assert not wrong


def test_the_direction_has_no_circle():
    above, below = set(), dict(ALLOWED)
    while below:
        free = {name for name, targets in below.items() if targets <= above}
        assert free, f"a circle among {sorted(below)}"
        above |= free
        below = {name: targets for name, targets in below.items() if name not in free}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_longer_than_500_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_no_device_and_no_place_is_written_into_the_code(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    moves = [
        f"line {node.lineno}: .cuda()"
        for node in nodes
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "cuda"
    ]
    # What follows a value in an f-string, as in f"{folder}/name", begins no path.
    endings = [id(v) for node in nodes if isinstance(node, ast.JoinedStr) for v in node.values[1:]]
    places = [
        f"line {node.lineno}: {node.value}"
        for node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in endings
        if re.match(r"(/|~/|[A-Za-z]:\\)\w+", node.value)
    ]
    assert not moves + places


def test_every_module_can_be_imported():
    """mypy does not miss what it is told to pass over, a module that is gone among it."""
    for module in pkgutil.walk_packages(qdformer.__path__, "qdformer."):
        if module.name.rpartition(".")[2] not in ("__main__", "ms_deform_attn_triton"):
            importlib.import_module(module.name)
