"""From the command line to a checked config: all that can be known before training starts."""

import logging
import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from qdformer.config.loading import find_config, load_config
from qdformer.config.validation import check_config, check_machine, clips_per_process
from qdformer.data.datasets.avsbench import register_avs
from qdformer.data.datasets.described import register_described
from qdformer.data.datasets.registration import check_records, complete_metadata
from qdformer.errors import InputError
from qdformer.evaluation.registry import EVALUATOR_REGISTRY

logger = logging.getLogger(__name__)


def register_roots(roots: list[str]) -> None:
    """Register the data sets under each folder of ``DATASETS.AVS_ROOTS``, once.

    Raises:
        InputError: two folders have one name, or a folder's own description cannot be used.
    """
    base = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    for root in roots:
        prefix = (base / root).resolve().name
        register_avs(prefix, base / root)
        register_described(prefix, base / root)


def load_records(name: str) -> list[dict[str, Any]]:
    """The clips of a registered data set.

    Raises:
        InputError: the name is unknown, or the data set cannot be used.
    """
    if name not in DatasetCatalog.list():
        # Detectron2 has data sets of its own, which are images without sound.
        tasks = {evaluator.task for _, evaluator in EVALUATOR_REGISTRY}
        known = [
            known
            for known in DatasetCatalog.list()
            if MetadataCatalog.get(known).get("evaluator_type") in tasks
        ]
        raise InputError(f"data set {name!r} is not registered; known: {', '.join(sorted(known))}")
    # Some data sets name their classes when they are read.
    records = DatasetCatalog.get(name)
    complete_metadata(name)
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
    args.config_file = find_config(args.config_file)  # Detectron2 logs its text
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
