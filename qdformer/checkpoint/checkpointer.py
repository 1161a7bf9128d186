"""Checkpoints: complete ones for resuming and evaluating, partial ones to start from."""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from qdformer.checkpoint.hub import local_file
from qdformer.checkpoint.metadata import reconcile
from qdformer.checkpoint.weights import all_finite, read_weights, write_weights
from qdformer.errors import InputError
from qdformer.io.atomic_write import atomic_write
from qdformer.modeling.backbone import TimmBackbone

logger = logging.getLogger(__name__)

_AUDIO_NETWORK = "audio_encoder.network."  # its name before there was more than VGGish: .vggish.


class UnreadableCheckpoint(InputError):
    """The file is damaged, or no checkpoint at all."""


class AVSCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, whose files are whole or absent, and verified when read.

    Weights of another architecture are refused in one sentence.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        complete: bool = False,
        keep: int = 0,
        description: dict[str, Any] | None = None,
        **others,
    ):
        """
        Args:
            model: where to load to.
            save_dir: where to save to.
            complete: a loaded file must hold every weight of the model, as for evaluation;
                otherwise it may hold a part, such as the backbone, to start training from.
            keep: the newest checkpoints that stay, of those with an iteration in their name; 0 for
                all.
            description: of the run, see :func:`~qdformer.checkpoint.metadata.run_metadata`: what
                saved files carry, and what loaded ones are brought to or must agree with.
            others: see Detectron2's checkpointer.
        """
        super().__init__(model, save_dir, **others)
        self.complete, self.keep, self.description = complete, keep, description

    def save(self, name: str, **others: Any) -> None:
        """Write ``{name}.pth`` with the model and everything else that is checkpointed.

        The last one, model_final, is written as ``model_final.safetensors``, too.

        Args:
            name: of the file, e.g. model_0000999.
            others: more to keep.

        Raises:
            InputError: the weights are not finite, or the file cannot be written, as on a full
                disk. Earlier checkpoints are what they were.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = {"model": self.model.state_dict(), "description": self.description}
        path = Path(self.save_dir, f"{name}.pth")
        self._refuse_non_finite(path, state["model"])
        good = self._last_good()  # which this one is to become
        state |= {key: part.state_dict() for key, part in self.checkpointables.items()} | others
        self.logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as partial, partial.open("wb") as file:
                torch.save(state, file)
            self.tag_last_checkpoint(path.name)
        except (OSError, RuntimeError) as error:
            # torch buries the reason of a failed write under one of its own.
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise InputError(
                f"{path}: cannot be written ({reason}; {good}); make room, then go on with --resume"
            ) from error
        for old in self._numbered()[self.keep :] if self.keep else ():
            old.unlink(missing_ok=True)
        if name == "model_final":
            # The form for others: weights, config and class names.
            write_weights(state["model"], path.with_suffix(".safetensors"), self.description)

    def _refuse_non_finite(self, path: Path, weights: dict[str, Any]) -> None:
        if not all_finite(weights):
            raise InputError(
                f"{path}: not written, because some weights are NaN or infinite "
                f"({self._last_good()}); lower SOLVER.BASE_LR, then go on with --resume"
            )

    def _last_good(self) -> str:
        return f"{self.save_dir}: the last good checkpoint is {self._tagged() or 'none'}"

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint that ``--resume`` follows."""
        with atomic_write(Path(self.save_dir, "last_checkpoint")) as partial:
            partial.write_text(last_filename_basename)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the run's newest checkpoint that can be read, or ``path`` if there is none.

        Raises:
            InputError: the run has checkpoints, and none can be read; or see :meth:`load`.
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        damaged = []
        for candidate in self._candidates():
            try:
                return self.load(str(candidate))
            except UnreadableCheckpoint as error:
                logger.warning("%s; the checkpoint before it is tried", error)
                damaged.append(candidate.name)
        raise InputError(
            f"{self.save_dir}: no checkpoint can be read ({', '.join(damaged)}); start again in "
            "another OUTPUT_DIR"
        )

    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from, also where ``last_checkpoint`` was lost."""
        return bool(self._candidates())

    def _tagged(self) -> str:
        return self._candidates()[0].name if self.has_checkpoint() else ""

    def _numbered(self) -> list[Path]:
        """Checkpoints with an iteration in their name, the newest first."""
        files = Path(self.save_dir).glob("model_*.pth")
        return sorted((f for f in files if re.fullmatch(r"model_\d+", f.stem)), reverse=True)

    def _candidates(self) -> list[Path]:
        """Checkpoints to resume from, the best first."""
        final = Path(self.save_dir, "model_final.pth")
        tagged = [Path(self.get_checkpoint_file())] if super().has_checkpoint() else []
        files = [*tagged, *self._numbered(), final]
        return [file for file in dict.fromkeys(files) if file.is_file()]

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load ``path``; see Detectron2's checkpointer.

        Raises:
            InputError: there is no such file, it is no checkpoint, or it does not fit the model.
        """
        if not path and self.complete:
            raise InputError(
                "MODEL.WEIGHTS is empty; give the checkpoint to evaluate, e.g. "
                "MODEL.WEIGHTS output/model_final.safetensors"
            )
        path = local_file(path)
        if path and "://" not in path and not Path(path).is_file():
            raise InputError(f"{path}: no such file; MODEL.WEIGHTS must name a checkpoint")
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        except OSError as error:
            raise InputError(f"{path}: cannot be fetched ({error}); give a file instead") from error
        finally:
            # Detectron2's main branch goes on believing in a load that failed.
            self._parsed_url_during_load = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            return read_weights(filename)
        except InputError as error:
            raise UnreadableCheckpoint(str(error)) from error

    def _load_model(self, checkpoint: dict[str, Any]):
        checkpoint["model"] = {
            re.sub(r"^audio_encoder\.vggish\.", _AUDIO_NETWORK, name): value
            for name, value in checkpoint["model"].items()
        }
        # A file without its modules' versions never misses the counters of batch normalization.
        expected = {k for k in self.model.state_dict() if not k.endswith("num_batches_tracked")}
        backbone = getattr(self.model, "backbone", None)
        if isinstance(backbone, TimmBackbone) and not expected & checkpoint["model"].keys():
            renamed = backbone.rename_weights(checkpoint["model"])
            checkpoint["model"] = {f"backbone.{key}": value for key, value in renamed.items()}
        if self.description:
            own = self.model.state_dict()
            reconcile(checkpoint, self.description, own, self._path, self.complete)
        incompatible = super()._load_model(checkpoint)
        wrong = {key for key, *_ in incompatible.incorrect_shapes}
        unfit = wrong | set(incompatible.missing_keys)
        found = expected - unfit
        useless = not any(key.startswith("backbone.") for key in found)
        unknown = incompatible.unexpected_keys if self.complete else []
        if wrong and not self.complete and not useless:
            logger.warning(
                "%s: of another shape here, so these begin anew: %s",
                self._path,
                ", ".join(sorted(wrong)),
            )
        if unfit or unknown if self.complete else useless:
            raise InputError(
                f"{self._path}: weights of another architecture: {len(found)} of the model's "
                f"{len(expected)} tensors found, {len(wrong)} of another shape, {len(unknown)} "
                f"that the model does not have, e.g. {sorted(wrong or unfit or unknown)[0]}; use "
                "the config that the checkpoint was trained with"
            )
        return incompatible


class BestModel(AVSCheckpointer):
    """Saves weights to evaluate and share, not to resume from."""

    def save(self, name: str, **others: Any) -> None:
        """Write ``{name}.safetensors``; ``others`` are for resuming and left out.

        Raises:
            InputError: the weights are not finite, or the file cannot be written.
        """
        if self.save_dir and self.save_to_disk:
            path, weights = Path(self.save_dir, f"{name}.safetensors"), self.model.state_dict()
            self._refuse_non_finite(path, weights)
            write_weights(weights, path, self.description)


def load_audio_network(model: nn.Module, path: str) -> None:
    """Load an audio network's released weights, which come as a plain dict of tensors.

    Args:
        model: with the network as ``model.audio_encoder.network``.
        path: the file, read without executing what it contains. What it holds beside the network,
            such as a classifier, is named in the log.

    Raises:
        InputError: there is no such file, or it is not of this network.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; MODEL.AUDIO.WEIGHTS must name a file of weights")
    network = model.get_submodule("audio_encoder.network")
    weights, own = read_weights(path)["model"], network.state_dict()
    for key, value in own.items():
        found = tuple(weights[key].shape) if key in weights else "missing"
        if found != tuple(value.shape):
            raise InputError(
                f"{path}: {key} has shape {found}, but MODEL.AUDIO describes "
                f"{type(network).__name__} with {tuple(value.shape)}; released weights want "
                'MODEL.AUDIO.NAME of their network, the published widths and NORM ""'
            )
    if unused := [key for key in weights if key not in own]:
        logger.info("%s: not used: %s", path, ", ".join(unused))
    network.load_state_dict({key: weights[key] for key in own})
