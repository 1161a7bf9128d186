"""From the command line to a checked config: all that can be known before training starts."""

import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from qdformer.config import add_qdformer_config
from qdformer.data.avsbench import register_avs
from qdformer.data.contract import check_records, complete_metadata
from qdformer.engine.config_check import check_config, check_machine, clips_per_process
from qdformer.errors import InputError

logger = logging.getLogger(__name__)

LARGEST_CONFIG = 100_000  # values
LAYOUT_NAME = re.compile(r"_(s4|ms3|avss)_(train|val|test)$")


def load_config(config_file: str, overrides: list[str]) -> CfgNode:
    """Read a config file and what the command line changes.

    Args:
        config_file: a yaml.
        overrides: keys and values in turn.

    Raises:
        InputError: no such file, no such key, or a value of another type.
    """
    cfg = get_cfg()
    add_qdformer_config(cfg)
    if config_file:
        with _config_errors(config_file):
            _check_chain(Path(config_file))
            cfg.merge_from_file(config_file, allow_unsafe=False)
    override(cfg, overrides)
    return cfg


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
            RecursionError, yaml.YAMLError) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: {reason}; qdformer/config.py lists QDFormer's keys") from error


def _check_chain(config_file: Path, based_on_it: tuple[Path, ...] = ()) -> None:
    """Refuse what would not end: configs that are based on themselves, aliases of aliases."""
    if not config_file.is_file():
        name = f"{based_on_it[-1]}: its _BASE_ {config_file}" if based_on_it else f"{config_file}"
        raise InputError(f"{name}: no such config file; see configs/ for those that exist")
    if config_file in based_on_it:
        raise InputError(f"{based_on_it[-1]}: its _BASE_ {config_file} is based on it; remove one")
    content = yaml.safe_load(config_file.read_text())
    check_written_out(content, str(config_file))
    bases = content.get("_BASE_", []) if isinstance(content, dict) else []
    for base in [bases] if isinstance(bases, str) else bases:
        _check_chain(config_file.parent / Path(base).expanduser(), (*based_on_it, config_file))


def check_written_out(content: Any, name: str) -> None:
    """Refuse a yaml of few lines that stands for more values than memory holds.

    Args:
        content: as the yaml was read.
        name: of the yaml.

    Raises:
        InputError: it stands for more than ``LARGEST_CONFIG``.
    """
    if _written_out(content, {}) > LARGEST_CONFIG:
        raise InputError(
            f"{name}: stands for more than {LARGEST_CONFIG} values, because its aliases (*name) "
            "multiply; write out what they stand for"
        )


def _written_out(value: Any, known: dict[int, float]) -> float:
    """How many values a yaml's content has when its aliases are written out."""
    if id(value) not in known:
        known[id(value)] = math.inf  # for what contains itself
        parts = value.values() if isinstance(value, dict) else value
        nested = parts if isinstance(value, (dict, list)) else ()
        known[id(value)] = 1 + sum(_written_out(part, known) for part in nested)
    return known[id(value)]


def register_roots(roots: list[str]) -> None:
    """Register the data sets under each folder of ``DATASETS.AVS_ROOTS``, once.

    Raises:
        InputError: two folders have one name.
    """
    base = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    for root in roots:
        register_avs((base / root).resolve().name, base / root)


def load_records(name: str) -> list[dict[str, Any]]:
    """The clips of a registered data set.

    Raises:
        InputError: the name is unknown, or the data set cannot be used.
    """
    if name not in DatasetCatalog.list():
        known = [known for known in DatasetCatalog.list() if LAYOUT_NAME.search(known)]
        raise InputError(f"data set {name!r} is not registered; known: {', '.join(sorted(known))}")
    # AVSBench's trees name their classes when they are read.
    records = DatasetCatalog.get(name) if LAYOUT_NAME.search(name) else None
    complete_metadata(name)
    records = DatasetCatalog.get(name) if records is None else records
    check_records(name, records)
    return records


def check_datasets(cfg: CfgNode, eval_only: bool) -> None:
    """Read the lists of all data sets that the run needs, and take the classes from them.

    Sets ``MODEL.QDFORMER.NUM_CLASSES`` where it is 0.

    Raises:
        InputError: a data set cannot be used, or has other classes than the rest or the config.
    """
    needed = "TEST" if eval_only else "TRAIN"
    if not cfg.DATASETS[needed]:
        raise InputError(
            f"DATASETS.{needed} is empty; name a registered data set, e.g. avsbench_avss_test"
        )
    names = [*(() if eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST]
    classes = {}
    for name in names:
        records = load_records(name)
        classes[name] = tuple(MetadataCatalog.get(name).stuff_classes)
        logger.info("%s: %d clips, %d classes", name, len(records), len(classes[name]) - 1)
    first = names[0]
    for name in names[1:]:
        if classes[name] != classes[first]:
            raise InputError(f"{name} has other classes than {first}; train and test must agree")
    found = len(classes[first]) - 1
    configured = cfg.MODEL.QDFORMER.NUM_CLASSES
    if configured not in (0, found):
        raise InputError(
            f"MODEL.QDFORMER.NUM_CLASSES is {configured}, but {first} has {found} classes without "
            "background; set it to 0 to take the data set's"
        )
    cfg.MODEL.QDFORMER.NUM_CLASSES = found


def setup(args) -> CfgNode:
    """Make the config of a run, check its data, and start logging to its ``OUTPUT_DIR``.

    Args:
        args: of Detectron2's ``default_argument_parser``.

    Returns:
        The frozen config.

    Raises:
        InputError: something that was handed in cannot be used.
    """
    cfg = load_config(args.config_file, args.opts)
    check_config(cfg)
    check_machine(cfg, args.num_gpus)
    if not args.eval_only:
        clips_per_process(cfg, comm.get_world_size())
    register_roots(cfg.DATASETS.AVS_ROOTS)
    check_datasets(cfg, args.eval_only)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(output=cfg.OUTPUT_DIR, name="qdformer")
    # The command prints the user's own errors in a sentence; Detectron2 would log their traceback.
    logging.getLogger("detectron2.engine.train_loop").addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], InputError))
    )
    return cfg
