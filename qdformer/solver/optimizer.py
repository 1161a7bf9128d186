"""Parameter groups: a slower backbone, and no weight decay where it does not belong."""

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from qdformer.modeling.codebook import Codebook

logger = logging.getLogger(__name__)

UNDECAYED_MODULES = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)
UNDECAYED_NAMES = ("prototypes", "codewords", "relative_position_bias_table")


def parameter_groups(
    model: nn.Module, *, base_lr: float, backbone_multiplier: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group what is trained by learning rate and weight decay.

    Args:
        model: a model whose visual backbone is ``model.backbone``.
        base_lr: learning rate of everything but the backbone.
        backbone_multiplier: learning rate of the backbone, as a fraction of ``base_lr``.
        weight_decay: of weights; biases, normalizations, embeddings and codewords have none.

    Returns:
        At most four groups, each trained parameter in exactly one.
    """
    groups: dict[tuple, dict[str, Any]] = {}
    seen = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            is_backbone = module_name.split(".")[0] == "backbone"
            undecayed = (
                isinstance(module, UNDECAYED_MODULES)
                or name in UNDECAYED_NAMES
                or name.endswith("bias")
            )
            key = (is_backbone, undecayed)
            group = groups.setdefault(
                key,
                {
                    "params": [],
                    "lr": base_lr * (backbone_multiplier if is_backbone else 1.0),
                    "weight_decay": 0.0 if undecayed else weight_decay,
                },
            )
            group["params"].append(parameter)
    return list(groups.values())


def apply_rates(
    cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any
) -> None:
    """Let a resumed run go on with the config's learning rates and weight decay, and say so.

    Args:
        cfg: of the run that goes on.
        model: as the optimizer was built for.
        optimizer: of :func:`build_optimizer`, with what a checkpoint says of its groups.
        scheduler: with what the checkpoint says of its base rates.
    """
    for index, fresh in enumerate(_groups(cfg, model)):
        group = optimizer.param_groups[index]
        old, new = group["initial_lr"], fresh["lr"]
        if (old, group["weight_decay"]) == (new, fresh["weight_decay"]):
            continue
        logger.info(
            "Resuming with learning rate %g and weight decay %g, which were %g and %g",
            new, fresh["weight_decay"], old, group["weight_decay"],
        )  # fmt: skip
        group["lr"] = group["lr"] * new / old if old else new
        group["initial_lr"] = scheduler.base_lrs[index] = new
        group["weight_decay"] = fresh["weight_decay"]


def _groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    return parameter_groups(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        backbone_multiplier=cfg.SOLVER.BACKBONE_MULTIPLIER,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over :func:`parameter_groups`, with the config's gradient clipping.

    Each of its steps is one of the model's codebooks, too, which nothing else moves.
    """
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(
        _groups(cfg, model), lr=cfg.SOLVER.BASE_LR
    )
    for codebook in filter(lambda module: isinstance(module, Codebook), model.modules()):
        optimizer.register_step_post_hook(lambda *_, codebook=codebook: codebook.step())
    return optimizer
