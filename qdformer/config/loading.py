"""Config files and command lines into configs, whatever they hold."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from qdformer.config.defaults import add_qdformer_config
from qdformer.errors import InputError

LARGEST_CONFIG = 100_000  # values
LONGEST_CONFIG = 2**16  # characters
MOST_BASES = 30  # that a config is based on, directly and indirectly


def load_config(config_file: str, overrides: list[str]) -> CfgNode:
    """Read a config file and what the command line changes.

    Args:
        config_file: a yaml, or the name of one that comes with the package; "" for none.
        overrides: keys and values in turn.

    Raises:
        InputError: no such file, no such key, or a value of another type.
    """
    cfg = get_cfg()
    add_qdformer_config(cfg)
    config_file = find_config(config_file)
    if config_file:
        with _config_errors(config_file):
            _check_chain(Path(config_file), [])
            cfg.merge_from_file(config_file, allow_unsafe=False)
    override(cfg, overrides)
    return cfg


def find_config(name: str) -> str:
    """A config file as it is named, or else ``NAME`` or ``configs/NAME`` of the package.

    In a wheel these lie in the package, in a checkout beside it.
    """
    package, within = Path(__file__).parents[1], name.removeprefix("configs/")
    for folder in (package / "configs", package.parent / "configs"):
        shipped = folder / within
        if name and not Path(name).exists() and shipped.is_file() and ".." not in shipped.parts:
            return str(shipped)
    return name


def override(cfg: CfgNode, overrides: list[str]) -> None:
    """Change a config in place.

    Args:
        cfg: not frozen.
        overrides: keys and values in turn.

    Raises:
        InputError: no such key, or a value of another type.
    """
    with _config_errors("the command line"):
        cfg.merge_from_list(overrides)


@contextmanager
def _config_errors(where: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, OSError,
            MemoryError, RecursionError, yaml.YAMLError) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise InputError(
            f"{where}: {reason}; qdformer/config/defaults.py lists QDFormer's keys"
        ) from error


def _check_chain(
    config_file: Path, visited: list[Path], based_on_it: tuple[Path, ...] = ()
) -> None:
    """Refuse what would not end: configs that are based on themselves or on very many."""
    visited.append(config_file)
    if len(visited) > MOST_BASES:
        raise InputError(f"{visited[0]}: is based on more than {MOST_BASES} configs; join some")
    if not config_file.is_file():
        name = f"{based_on_it[-1]}: its _BASE_ {config_file}" if based_on_it else f"{config_file}"
        raise InputError(f"{name}: no such config file; see configs/ for those that exist")
    if config_file in based_on_it:
        raise InputError(f"{based_on_it[-1]}: its _BASE_ {config_file} is based on it; remove one")
    content = parse_yaml(config_file.read_text(), str(config_file))
    bases = content.get("_BASE_", []) if isinstance(content, dict) else []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{config_file}: its _BASE_ is {bases!r:.40}; give a path or some")
    for base in bases:
        _check_chain(
            config_file.parent / Path(base).expanduser(), visited, (*based_on_it, config_file)
        )


def parse_yaml(text: str, name: str) -> Any:
    """Read a config that may come from anywhere, in time and memory that its size bounds.

    Args:
        text: of the yaml.
        name: of the yaml.

    Raises:
        InputError: it is too long, has merge keys (<<) or numbers to the base of 60 (1:30), or its
            aliases stand for more than ``LARGEST_CONFIG`` values.
    """
    if len(text) > LONGEST_CONFIG:
        raise InputError(f"{name}: has {len(text)} characters; at most {LONGEST_CONFIG} are read")
    try:
        content = yaml.load(text, _Loader)
    except _Unbounded as error:
        raise InputError(f"{name}: {error}") from error
    if _written_out(content, {}) > LARGEST_CONFIG:
        raise InputError(
            f"{name}: stands for more than {LARGEST_CONFIG} values, because its aliases (*name) "
            "multiply; write out what they stand for"
        )
    return content


class _Unbounded(ValueError):
    pass


class _Loader(yaml.SafeLoader):
    """Without what takes time that the size of a text does not bound."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise _Unbounded("has a merge key (<<); write out what it stands for")

    def construct_number(self, node: yaml.Node) -> Any:
        if ":" in str(node.value):
            raise _Unbounded(f"has the number {node.value!r:.40}; a text with colons wants quotes")
        kind = node.tag.rpartition(":")[2]
        construct = yaml.SafeLoader.construct_yaml_int
        return (construct if kind == "int" else yaml.SafeLoader.construct_yaml_float)(self, node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def _written_out(value: Any, known: dict[int, float]) -> float:
    """How many values a yaml's content has when its aliases are written out."""
    if id(value) not in known:
        known[id(value)] = math.inf  # for what contains itself
        parts = value.values() if isinstance(value, dict) else value
        nested = parts if isinstance(value, (dict, list)) else ()
        known[id(value)] = 1 + sum(_written_out(part, known) for part in nested)
    return known[id(value)]
