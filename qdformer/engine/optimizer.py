"""Parameter groups: a slower backbone, and no weight decay where it does not belong."""

from typing import Any

import torch
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from qdformer.modeling.codebook import Codebook

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
        weight_decay: of weights; biases, normalisations, embeddings and codewords have none.

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


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over :func:`parameter_groups`, with the config's gradient clipping.

    Each of its steps is one of the model's codebooks, too, which nothing else moves.
    """
    groups = parameter_groups(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        backbone_multiplier=cfg.SOLVER.BACKBONE_MULTIPLIER,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(groups, lr=cfg.SOLVER.BASE_LR)
    for codebook in filter(lambda module: isinstance(module, Codebook), model.modules()):
        optimizer.register_step_post_hook(lambda *_, codebook=codebook: codebook.step())
    return optimizer
