"""What a checkpoint says of itself, so that one file is enough to predict."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import Metadata, MetadataCatalog
from detectron2.modeling import build_model
from torch import Tensor

from qdformer.checkpoint.weights import read_weights
from qdformer.config.defaults import add_qdformer_config
from qdformer.config.loading import parse_yaml
from qdformer.config.validation import check_config, value_of
from qdformer.errors import InputError

logger = logging.getLogger(__name__)


# What the network takes frames and sounds for; weights are of no use with another value.
INPUTS = ("INPUT.FORMAT", "INPUT.AUDIO_HOP", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")

# Rows of the class head, one a class in the order of the data set's.
CLASS_ROWS = ("mask_decoder.class_head.2.weight", "mask_decoder.class_head.2.bias")


def run_metadata(cfg: CfgNode, dataset: str = "") -> dict[str, Any]:
    """What a run's checkpoints carry beside their weights.

    Args:
        cfg: of the run.
        dataset: whose classes they are; by default the run's first training set.

    Returns:
        ``config``, a yaml that says nothing of where this machine has its files; ``classes``, the
        names with background first; ``colors``, (R, G, B) of each, 0 to 255.
    """
    metadata = MetadataCatalog.get(dataset or cfg.DATASETS.TRAIN[0])
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = cfg.MODEL.WEIGHTS = ""
    cfg.DATASETS.AVS_ROOTS = ()
    # Whether it is there decides what is trained.
    cfg.MODEL.AUDIO.WEIGHTS = Path(cfg.MODEL.AUDIO.WEIGHTS).name
    return {
        "config": cfg.dump(),
        "classes": [str(name) for name in metadata.stuff_classes],
        "colors": [[int(value) for value in color] for color in metadata.stuff_colors],
    }


def reconcile(
    checkpoint: dict[str, Any], run: dict[str, Any], own: dict[str, Tensor], path: str, whole: bool
) -> None:
    """Bring a checkpoint's class head to the classes of a run, by their names.

    Args:
        checkpoint: ``model`` is changed in place; one without ``description`` is left alone.
        run: what :func:`run_metadata` says of the run.
        own: the state of the run's model, whose rows classes begin with that the checkpoint lacks.
        path: of the checkpoint.
        whole: whether nothing may begin anew, as for evaluation.

    Raises:
        InputError: the checkpoint contradicts the run: in its inputs or, if it is to be used as a
            whole, by lacking one of the run's classes.
    """
    theirs, weights = checkpoint.get("description"), checkpoint["model"]
    if not isinstance(theirs, dict):
        return
    wanted = CfgNode(yaml.safe_load(run["config"]))
    try:
        trained = CfgNode(_content(theirs))
        old = [str(name) for name in theirs["classes"][1:]]
        differing = [key for key in INPUTS if value_of(trained, key) != value_of(wanted, key)]
    except Exception as error:  # a description from anywhere breaks in any way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{path}: what it says of its config and classes cannot be used ({reason}); write the "
            "checkpoint again with this version, or give one without a description"
        ) from error
    for key in differing:
        message = (
            f"{path}: was trained with {key} {value_of(trained, key)}, but the run has "
            f"{value_of(wanted, key)}"
        )
        if whole or key != "INPUT.AUDIO_HOP":
            raise InputError(f"{message}; set it to the checkpoint's")
        logger.warning("%s, to which it is tuned", message)
    new = run["classes"][1:]
    for key in CLASS_ROWS:
        rows = weights.get(key)
        if rows is not None and (rows.ndim == 0 or len(rows) not in (len(old), len(old) + 1)):
            raise InputError(
                f"{path}: names {len(old)} classes, and its {key} has the shape {(*rows.shape,)}; "
                "write the checkpoint again, or give one without a description"
            )
    missing = [name for name in new if name not in old]
    if old == new or not all(key in weights and key in own for key in CLASS_ROWS):
        return
    if whole and missing:
        raise InputError(
            f"{path}: was trained on other classes than the data set's, without "
            f"{', '.join(missing)}; it knows {', '.join(old)}"
        )
    logger.warning(
        "%s: classes are taken by their names; %s",
        path,
        f"{', '.join(missing)} begin anew" if missing else "all of them are known",
    )
    for key in CLASS_ROWS:
        rows = own[key].detach().cpu().clone()
        for index, name in enumerate(new):
            if name in old:
                rows[index] = torch.as_tensor(weights[key][old.index(name)])
        # Behind the classes, that of the background where it is trained as one.
        if len(weights[key]) > len(old) and len(rows) > len(new):
            rows[len(new) :] = torch.as_tensor(weights[key][len(old) :])
        weights[key] = rows


def _content(description: dict[str, Any]) -> dict[str, Any]:
    """The config in a description from anywhere, as plain values."""
    content = parse_yaml(description["config"], "its config")
    if any("://" in text for text in _texts(content)):
        raise ValueError("its config names an address on a network")
    return content


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, (dict, list)):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _texts(part)
    elif isinstance(content, str):
        yield content


def read_metadata(path: str) -> tuple[CfgNode, Metadata]:
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
        cfg.merge_from_other_cfg(CfgNode(_content(description)))
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
        raise ValueError(f"{len(classes)} names and {len(colors)} colors of {num_classes} classes")
    if not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise ValueError("a class name is no text that can be printed")
    if any(len(color) != 3 or not {*color} <= {*range(256)} for color in colors):
        raise ValueError("a color is not three numbers from 0 to 255")
    return Metadata(stuff_classes=classes, stuff_colors=[tuple(color) for color in colors])
