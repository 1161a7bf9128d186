"""Tables of one's own, as a yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qdformer.config.loading import parse_yaml
from qdformer.errors import InputError
from qdformer.reproduction.experiments import Experiment, Row

_FORM = "title, and rows of name, overrides (keys and values), config, weights_of (a row before)"
_KINDS: dict[str, type] = {"name": str, "overrides": dict, "config": str, "weights_of": str}


def read_experiment(path: str) -> Experiment:
    """Read a table whose rows are trained and evaluated as those of the paper's.

    Args:
        path: of a yaml with ``title`` and ``rows``. Each row has a ``name`` and maybe
            ``overrides``, config keys and their values; ``config``, a config file in place of the
            command's, whose name is read from the yaml's folder on; and ``weights_of``, the name of
            a row before, whose weights are evaluated instead of training.

    Raises:
        InputError: the file cannot be read, or is of another form.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"), path)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}); give a yaml of {_FORM}") from error
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: has no rows; give a yaml of {_FORM}")
    read: list[Row] = []
    for number, row in enumerate(rows, start=1):
        read.append(_row(f"{path}: row {number}", row, read, Path(path).parent))
    return Experiment(str(content.get("title", Path(path).stem)), tuple(read))


def _row(where: str, row: Any, before: list[Row], folder: Path) -> Row:
    if not isinstance(row, dict) or not row.get("name"):
        raise InputError(f"{where} has no name; give {_FORM}")
    for key, value in row.items():
        if key not in _KINDS:
            raise InputError(f"{where} has {key!r}; known are {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[key]):
            raise InputError(f"{where}: {key} is {value!r}; give {_KINDS[key].__name__}")
    names = [other.name for other in before]
    if row["name"] in names:
        raise InputError(f"{where}: a second row is called {row['name']!r}; give each its name")
    if (source := row.get("weights_of", "")) and source not in names:
        raise InputError(f"{where}: weights_of is {source!r}; rows before it: {', '.join(names)}")
    config = row.get("config", "")
    beside = folder / config
    return Row(
        row["name"],
        row.get("overrides", {}),
        weights_of=source,
        config=str(beside) if config and beside.is_file() else config,
    )
