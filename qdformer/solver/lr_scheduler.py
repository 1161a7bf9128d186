"""Learning-rate schedules by name: Detectron2's, and those of whoever registers one."""

from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from fvcore.common.registry import Registry
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

LR_SCHEDULER_REGISTRY = Registry("LR_SCHEDULER")
LR_SCHEDULER_REGISTRY.__doc__ = """
Schedules for ``SOLVER.LR_SCHEDULER_NAME``: ``function(cfg, optimizer)`` returns a torch
``LRScheduler`` that is stepped after every iteration.
"""


@LR_SCHEDULER_REGISTRY.register()
def WarmupMultiStepLR(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """Detectron2's."""
    return build_detectron2_scheduler(cfg, optimizer)


@LR_SCHEDULER_REGISTRY.register()
def WarmupCosineLR(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """Detectron2's."""
    return build_detectron2_scheduler(cfg, optimizer)


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule that ``SOLVER.LR_SCHEDULER_NAME`` names."""
    return LR_SCHEDULER_REGISTRY.get(cfg.SOLVER.LR_SCHEDULER_NAME)(cfg, optimizer)
