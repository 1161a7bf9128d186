"""What is timed: a model's forward, its training step, and the ResNet-50 beside them."""

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from torchvision.models import resnet50

from qdformer.benchmark.options import Workload
from qdformer.modeling.inference_fusion import fuse_for_inference
from qdformer.solver.optimizer import build_optimizer

OBJECTS = 3
"""Of a training clip."""


class Reference:
    """The forward of torchvision's ResNet-50, in fp32, on as many frames as the model gets."""

    def __init__(self, workload: Workload):
        self.model = resnet50(weights=None).to(workload.device).eval()
        shape = (workload.batch * workload.frames, 3, workload.size, workload.size)
        self.frames = torch.randn(shape, device=workload.device)

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        """Run it once."""
        return self.model(self.frames)


class EvalForward:
    """From mapper outputs to label maps at full size, with untrained weights."""

    def __init__(self, cfg: CfgNode, workload: Workload):
        self.workload = workload
        self.model = _build(cfg).eval()
        if cfg.MODEL.QDFORMER.FAST_INFERENCE:
            fuse_for_inference(self.model)
        self.clips = random_clips(workload)

    @torch.no_grad()
    def __call__(self) -> list[dict[str, Any]]:
        """Run it once; gives the model's outputs."""
        with self.workload.autocast():
            return self.model(self.clips)


class TrainingStep:
    """Forward, backward, gradient clipping and the optimizer's step, as in training."""

    def __init__(self, cfg: CfgNode, workload: Workload):
        self.workload = workload
        self.model = _build(cfg).train()
        self.optimizer = build_optimizer(cfg, self.model)
        self.clips = random_clips(workload, cfg.MODEL.QDFORMER.NUM_CLASSES)

    def __call__(self) -> None:
        """Make one step."""
        # As in most iterations: every 20th one logs more.
        with EventStorage(start_iter=1), self.workload.autocast():
            losses = self.model(self.clips)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


RUNS: dict[str, Any] = {"eval": EvalForward, "train": TrainingStep}
"""Runs of a model by the name of their measure."""


def random_clips(workload: Workload, num_classes: int = 0) -> list[dict[str, Any]]:
    """Clips as the mapper gives them, of noise, always the same; with classes they have labels."""
    rng = np.random.default_rng(0)
    frames, size = workload.frames, workload.size
    clips = []
    for index in range(workload.batch):
        image = rng.integers(0, 256, (frames, 3, size, size), dtype=np.uint8)
        audio = rng.normal(-3, 2, (frames, 1, 96, 64)).astype(np.float32)
        clip: dict[str, Any] = {"image": torch.from_numpy(image), "audio": torch.from_numpy(audio)}
        clip |= {"height": size, "width": size, "video_id": str(index)}
        if num_classes:
            objects = min(OBJECTS, num_classes)
            masks = torch.zeros(frames, objects, size, size, dtype=torch.bool)
            for k, (top, left) in enumerate(rng.integers(0, size // 2, (objects, 2))):
                masks[:, k, top : top + size // 3, left : left + size // 3] = True
            classes = torch.from_numpy(rng.permutation(num_classes)[:objects])
            clip["instances"] = [
                Instances((size, size), gt_classes=classes, gt_masks=BitMasks(frame))
                for frame in masks
            ]
            clip["annotated"] = torch.ones(frames, dtype=torch.bool)
        clips.append(clip)
    return clips


def _build(cfg: CfgNode) -> Any:
    torch.manual_seed(0)
    return build_model(cfg)
