"""A loss that is NaN or infinite ends the run, with the clips' names and what reproduces it."""

from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.structures import BitMasks, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from qdformer.checkpoint.weights import all_finite
from qdformer.data.train_loader import combined_seed
from qdformer.errors import InputError
from qdformer.io.atomic_write import atomic_write


class NonFiniteLoss(InputError):
    """A loss is NaN or infinite; the message names it, the clips and the file to look at."""


class LossGuard(HookBase):
    """Looks at every loss before the gradients are computed, in every process."""

    def __init__(self, folder: str):
        """
        Args:
            folder: where the batch and the weights go.
        """
        self.folder = Path(folder)

    def before_train(self) -> None:
        """Watch the model."""
        self._watch = self.trainer._trainer.model.register_forward_hook(self._check)

    def after_train(self) -> None:
        """Leave the model as it was."""
        self._watch.remove()

    def _check(self, model: nn.Module, inputs: tuple, losses: dict[str, Tensor]) -> None:
        if not model.training or all_finite(losses):
            return
        (clips,), iteration = inputs, self.trainer.iter
        path = self.folder / f"non_finite_{iteration:07d}_{comm.get_rank()}.pth"
        broken = [name for name, loss in losses.items() if not loss.isfinite()]
        batch = {
            "model": model.state_dict(),
            "clips": [_to_tensors(clip) for clip in clips],
            "seed": step_seed(self.trainer.seed, iteration),
        }
        with atomic_write(path) as partial:
            torch.save(batch, partial)
        raise NonFiniteLoss(
            f"iteration {iteration}: {', '.join(broken)} is not finite for the clips "
            f"{', '.join(str(clip['video_id']) for clip in clips)}; {path} holds them and the "
            "weights, for qdformer.engine.non_finite.replay; look at the clips or lower "
            "SOLVER.BASE_LR, then go on from the last checkpoint with --resume"
        )


def replay(model: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Compute again the losses that ended a run.

    Args:
        model: of the run's config, on its device; gets the weights of that moment.
        path: the file that the run named, read without executing what it contains.

    Returns:
        The losses by name.
    """
    batch = torch.load(path, map_location="cpu", weights_only=True)
    weights = {name.removeprefix("module."): value for name, value in batch["model"].items()}
    model.load_state_dict(weights)
    model.train()
    torch.manual_seed(batch["seed"])
    with EventStorage():
        return model([_to_clip(clip) for clip in batch["clips"]])


def step_seed(seed: int, iteration: int) -> int:
    """The seed of what this process's model draws in an iteration, such as dropout."""
    return combined_seed(seed, comm.get_rank(), iteration)


def _to_tensors(clip: dict[str, Any]) -> dict[str, Any]:
    """What the model uses of a mapped clip, without Detectron2's classes."""
    instances = clip["instances"]
    return {key: clip[key] for key in ("video_id", "image", "audio", "annotated")} | {
        "classes": instances[0].gt_classes,
        "masks": torch.stack([frame.gt_masks.tensor for frame in instances]),
    }


def _to_clip(saved: dict[str, Any]) -> dict[str, Any]:
    size = tuple(saved["image"].shape[-2:])
    instances = [
        Instances(size, gt_classes=saved["classes"], gt_masks=BitMasks(frame))
        for frame in saved["masks"]
    ]
    return {**saved, "instances": instances, "height": size[0], "width": size[1]}
