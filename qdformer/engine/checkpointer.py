"""Checkpoints: complete ones for resuming and evaluating, partial ones to start from."""

from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from qdformer.errors import InputError
from qdformer.modeling.backbone import TimmBackbone


class AVSCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that refuses weights of another architecture in one sentence."""

    def __init__(self, model: nn.Module, save_dir: str = "", *, complete: bool = False, **others):
        """
        Args:
            model: where to load to.
            save_dir: where to save to.
            complete: a loaded file must hold every weight of the model, as for evaluation;
                otherwise it may hold a part, such as the backbone, to start training from.
            others: see Detectron2's checkpointer.
        """
        super().__init__(model, save_dir, **others)
        self.complete = complete

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load ``path``; see Detectron2's checkpointer.

        Raises:
            InputError: there is no such file, it is no checkpoint, or it does not fit the model.
        """
        if not path and self.complete:
            raise InputError(
                "MODEL.WEIGHTS is empty; give the checkpoint to evaluate, e.g. "
                "MODEL.WEIGHTS output/model_final.pth"
            )
        if path and "://" not in path and not Path(path).is_file():
            raise InputError(f"{path}: no such file; MODEL.WEIGHTS must name a checkpoint")
        self._path = path
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            loaded = super()._load_file(filename)
            loaded["model"].keys()
            return loaded
        except Exception as error:  # torch and pickle raise what they like on a broken file
            raise InputError(
                f"{filename}: cannot be read as a checkpoint ({type(error).__name__}); expected a "
                ".pth that this project wrote or Detectron2's .pkl of a backbone"
            ) from error

    def _load_model(self, checkpoint: dict[str, Any]):
        # A file without its modules' versions never misses the counters of batch normalisation.
        expected = {k for k in self.model.state_dict() if not k.endswith("num_batches_tracked")}
        backbone = getattr(self.model, "backbone", None)
        if isinstance(backbone, TimmBackbone) and not expected & checkpoint["model"].keys():
            renamed = backbone.rename_weights(checkpoint["model"])
            checkpoint["model"] = {f"backbone.{key}": value for key, value in renamed.items()}
        incompatible = super()._load_model(checkpoint)
        wrong = {key for key, *_ in incompatible.incorrect_shapes}
        unfit = wrong | set(incompatible.missing_keys)
        found = expected - unfit
        useless = not any(key.startswith("backbone.") for key in found)
        unknown = incompatible.unexpected_keys if self.complete else []
        if wrong or (unfit or unknown if self.complete else useless):
            raise InputError(
                f"{self._path}: weights of another architecture: {len(found)} of the model's "
                f"{len(expected)} tensors found, {len(wrong)} of another shape, {len(unknown)} "
                f"that the model does not have, e.g. {sorted(wrong or unfit or unknown)[0]}; use "
                "the config that the checkpoint was trained with"
            )
        return incompatible


class BestModel(AVSCheckpointer):
    """Saves weights to evaluate and share, not to resume from: the newest checkpoint stays last."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Leave the tag that ``--resume`` follows where it is."""


def load_vggish(model: nn.Module, path: str) -> None:
    """Load released VGGish weights, which come as a plain dict of tensors.

    Args:
        model: with the network as ``model.audio_encoder.vggish``.
        path: the file, read without executing what it contains.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; MODEL.AUDIO.WEIGHTS must name VGGish's weights")
    vggish = model.audio_encoder.vggish
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {key: tuple(value.shape) for key, value in weights.items()}
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as VGGish weights ({type(error).__name__}); expected a file "
            "of tensors such as vggish-10086976.pth"
        ) from error
    expected = {key: tuple(value.shape) for key, value in vggish.state_dict().items()}
    if shapes != expected:
        key = next(k for k in [*expected, *shapes] if shapes.get(k) != expected.get(k))
        raise InputError(
            f"{path}: {key} has shape {shapes.get(key, 'missing')}, but MODEL.AUDIO describes "
            f"{expected.get(key, 'no such tensor')}; released weights want the published widths "
            'and NORM ""'
        )
    vggish.load_state_dict(weights)
