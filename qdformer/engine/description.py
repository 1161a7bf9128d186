"""What a checkpoint says of itself, so that one file is enough to predict."""

import math
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import Metadata, MetadataCatalog
from detectron2.modeling import build_model

from qdformer.config import add_qdformer_config
from qdformer.engine.config_check import check_config
from qdformer.engine.setup import check_written_out
from qdformer.engine.weights import read_weights
from qdformer.errors import InputError


def describe(cfg: CfgNode) -> dict[str, Any]:
    """What a run's checkpoints carry beside their weights.

    Args:
        cfg: of the run, whose first training set has the classes.

    Returns:
        ``config``, a yaml that says nothing of this machine's folders for results; ``classes``, the
        names with background first; ``colors``, (R, G, B) of each, 0 to 255.
    """
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = ""
    return {
        "config": cfg.dump(),
        "classes": [str(name) for name in metadata.stuff_classes],
        "colors": [[int(value) for value in color] for color in metadata.stuff_colors],
    }


def read_description(path: str) -> tuple[CfgNode, Metadata]:
    """The config and the classes that a checkpoint carries.

    Args:
        path: a checkpoint, from anywhere: nothing in it is executed.

    Returns:
        The config, with ``MODEL.WEIGHTS`` naming the checkpoint, and metadata with
        ``stuff_classes`` and ``stuff_colors``.

    Raises:
        InputError: the file cannot be read, carries no description, or one that cannot be used.
    """
    weights = read_weights(path)
    description = weights.get("description")
    if not isinstance(description, dict):
        raise InputError(
            f"{path}: carries no config and no class names; give the config of its run, too, with "
            "--config-file"
        )
    cfg = get_cfg()
    add_qdformer_config(cfg)
    try:
        content = yaml.safe_load(description["config"])
        check_written_out(content, "its config")
        cfg.merge_from_other_cfg(CfgNode(content))
        check_config(cfg)
        _check_network(cfg, weights["model"])
        metadata = _metadata(description, cfg.MODEL.QDFORMER.NUM_CLASSES)
    except Exception as error:  # a config from anywhere breaks what is built of it in any way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{path}: what it says of its config and classes cannot be used ({reason}); give the "
            "config of its run with --config-file"
        ) from error
    cfg.MODEL.WEIGHTS = str(path)
    return cfg, metadata


def _check_network(cfg: CfgNode, weights: dict[str, Any]) -> None:
    """Before memory is taken for a network, look at how large it would be."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        network = build_model(cfg).state_dict()
    needed, held = (
        sum(math.prod(value.shape) for value in tensors.values()) for tensors in (network, weights)
    )
    if needed > held:
        raise ValueError(f"a network of {needed:,} numbers, and the file holds {held:,}")


def _metadata(description: dict[str, Any], num_classes: int) -> Metadata:
    classes, colors = description["classes"], description["colors"]
    if len(classes) != num_classes + 1 or len(colors) != len(classes):
        raise ValueError(f"{len(classes)} names and {len(colors)} colours of {num_classes} classes")
    if not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise ValueError("a class name is no text that can be printed")
    if any(len(color) != 3 or not {*color} <= {*range(256)} for color in colors):
        raise ValueError("a colour is not three numbers from 0 to 255")
    return Metadata(stuff_classes=classes, stuff_colors=[tuple(color) for color in colors])
