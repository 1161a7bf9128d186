"""Detectron2's trainer with audio-visual data, evaluators, pictures and complete checkpoints."""

import contextlib
import errno
import logging
import os
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
)
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from qdformer.checkpoint.checkpointer import AVSCheckpointer, BestModel, load_audio_network
from qdformer.checkpoint.metadata import run_metadata
from qdformer.config.validation import clips_per_process
from qdformer.data.dataset_mapper import build_mapper
from qdformer.data.source_count import subsample_by_source_count
from qdformer.data.train_loader import TrainLoader, build_sampler
from qdformer.data.unreadable import DropUnreadable, SkipUnreadable, without_dropped
from qdformer.engine.hooks import (
    BestCheckpointer,
    PreemptionHook,
    SheetWriter,
    SkippedClipsReport,
    StepRecord,
    StepSeed,
    ZeroGradHook,
)
from qdformer.engine.model_card import ModelCard
from qdformer.engine.non_finite import LossGuard, NonFiniteLoss
from qdformer.engine.setup import load_records
from qdformer.errors import InputError
from qdformer.evaluation.language_evaluation import LanguageEvaluator
from qdformer.evaluation.registry import find_evaluator
from qdformer.evaluation.saved_predictions import PredictionWriter
from qdformer.evaluation.track_evaluation import TrackEvaluator
from qdformer.io.folder_lock import lock_folder
from qdformer.layers.sync_batch_norm import convert_sync_batch_norm
from qdformer.modeling.codebook import Codebook
from qdformer.solver.lr_scheduler import build_lr_scheduler
from qdformer.solver.optimizer import apply_rates, build_optimizer
from qdformer.visualization.prediction_sheet import prediction_sheet

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """One trainer for every data set: its records and metadata say the rest."""

    def __init__(self, cfg):
        """
        Args:
            cfg: a frozen config, see :func:`qdformer.engine.setup.setup`.
        """
        # Drawn once for all processes; a resumed run takes its own from the checkpoint.
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.stop_request = PreemptionHook()
        self.taken = 0
        super().__init__(cfg)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue the run in ``OUTPUT_DIR``, or start from the weights that the config names.

        Raises:
            InputError: what is to be loaded is missing, damaged or of another architecture, or a
                new run would overwrite the checkpoints of an earlier one.
        """
        has_checkpoint = self.checkpointer.has_checkpoint()
        if has_checkpoint and not resume:
            raise InputError(
                f"OUTPUT_DIR is {self.cfg.OUTPUT_DIR}, which holds the checkpoints of a run; add "
                "--resume to continue it or choose another folder"
            )
        self.checkpointer.complete = has_checkpoint
        if not has_checkpoint:
            Path(skipped_file(self.cfg)).unlink(missing_ok=True)
            if self.cfg.MODEL.AUDIO.WEIGHTS:
                load_audio_network(_unwrap(self._trainer.model), self.cfg.MODEL.AUDIO.WEIGHTS)
            elif self.cfg.MODEL.AUDIO.FREEZE:
                logger.warning(
                    "MODEL.AUDIO.WEIGHTS is empty: %s is trained, from random weights or those of "
                    "MODEL.WEIGHTS; name its file to keep it as it is",
                    self.cfg.MODEL.AUDIO.NAME,
                )
        try:
            super().resume_or_load(resume)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.cfg.OUTPUT_DIR}: the run trained other parameters than this config "
                f"({error}); resume it with its own {self.cfg.OUTPUT_DIR}/config.yaml"
            ) from error
        if has_checkpoint:
            apply_rates(self.cfg, _unwrap(self._trainer.model), self.optimizer, self.scheduler)
        else:
            self._restart_codebooks()
        self.taken = self.start_iter

    def _restart_codebooks(self) -> None:
        """A new run has a schedule of its own, also from the weights of one that ended."""
        for codebook in self._trainer.model.modules():
            if isinstance(codebook, Codebook):
                if int(codebook.steps) and codebook.fade_in:
                    logger.info(
                        "The codewords of %s are kept; the bottleneck opens and closes again over "
                        "%d iterations (MODEL.QDFORMER.CODEBOOK.FADE_IN)",
                        self.cfg.MODEL.WEIGHTS,
                        codebook.fade_in,
                    )
                codebook.restart()

    def train(self):
        """Train; what ends a run early does not cost the steps that were taken.

        Raises:
            InputError: something cannot be read or written, or a loss is not finite.
            Preempted: on SIGTERM or Ctrl-C.
        """
        self._trainer.data_loader.begin(self.seed, self.start_iter)
        main = comm.is_main_process()
        with lock_folder(self.cfg.OUTPUT_DIR) if main else contextlib.nullcontext():
            return self._train()

    def _train(self):
        try:
            with self.stop_request:
                return super().train()
        except NonFiniteLoss:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._save_before_the_end()
                raise
            raise InputError(
                f"{self.cfg.OUTPUT_DIR}: cannot be written ({error.strerror}); make room, then go "
                "on from the last checkpoint with --resume"
            ) from error
        except BaseException as error:
            self._save_before_the_end()
            if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
                raise InputError(
                    f"{self.cfg.OUTPUT_DIR}: a process that reads clips was ended from outside "
                    f"({str(error).splitlines()[0]}); memory may have run out: lower "
                    "DATALOADER.NUM_WORKERS, then go on with --resume"
                ) from error
            raise

    def _save_before_the_end(self) -> None:
        """Whatever ends a run does not cost the steps that were taken."""
        try:
            self.save()
        except InputError:
            raise
        except Exception:
            logger.exception("The last steps could not be saved")

    def run_step(self) -> None:
        """One step; see Detectron2's trainer."""
        super().run_step()
        self.taken = self.iter + 1

    def save(self) -> None:
        """Write a checkpoint of the last step that was taken, if there is one."""
        if self.taken:
            self.iter = self.taken - 1
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run beside weights and optimizer."""
        return super().state_dict() | {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        super().load_state_dict(state_dict)
        self.seed = state_dict["seed"]

    @classmethod
    def build_model(cls, cfg) -> nn.Module:
        """The config's meta-architecture, on its device."""
        model = build_model(cfg)
        if comm.get_world_size() > 1:
            model = convert_sync_batch_norm(model)
            # Parameters are made alike by DDP. Buffers, among them the codewords, are not, and each
            # process has drawn its own.
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logger.info("%s: %.1f M parameters are trained", type(model).__name__, trained / 1e6)
        return model

    @classmethod
    def build_optimizer(cls, cfg, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`qdformer.solver.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer: torch.optim.Optimizer):
        """See :func:`qdformer.solver.lr_scheduler.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg):
        """Batches of ``SOLVER.IMS_PER_BATCH`` clips over all processes."""
        records = [record for name in cfg.DATASETS.TRAIN for record in load_records(name)]
        loader = cfg.DATALOADER
        if loader.SINGLE_SOURCE >= 0:
            records = subsample_by_source_count(records, loader.SINGLE_SOURCE, max(cfg.SEED, 0))

        return TrainLoader(
            records,
            SkipUnreadable(build_mapper(cfg, True), records, skipped_file(cfg)),
            partial(build_sampler, cfg, len(records)),
            batch_size=clips_per_process(cfg, comm.get_world_size()),
            num_workers=loader.NUM_WORKERS,
            aspect_ratio_grouping=loader.ASPECT_RATIO_GROUPING,
        )

    @classmethod
    def build_test_loader(cls, cfg, dataset_name: str):
        """One clip at a time, at its own length; none in place of one that cannot be read."""
        mapper = DropUnreadable(build_mapper(cfg, False), skipped_file(cfg))
        return build_detection_test_loader(
            cfg, dataset_name, mapper=mapper, collate_fn=without_dropped
        )

    @classmethod
    def build_evaluator(cls, cfg, dataset_name: str) -> DatasetEvaluators:
        """The evaluator that the data set's metadata names, those of language and of tracks."""
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        scored = find_evaluator(dataset_name)(dataset_name, folder)
        threshold = cfg.MODEL.QDFORMER.CLASS_THRESHOLD
        language = LanguageEvaluator(dataset_name, folder, class_threshold=threshold)
        evaluators = [scored, language, TrackEvaluator(dataset_name, folder, threshold)]
        if cfg.TEST.SAVE_PREDICTIONS:
            evaluators.append(PredictionWriter(dataset_name, os.path.join(folder, "masks")))
        return DatasetEvaluators(evaluators)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; the seed, the best checkpoint, the pictures, the skipped clips."""
        # Detectron2 makes the hooks last of all; they save through the checkpointer they find.
        self.checkpointer = self._build_checkpointer()
        period, test = self.cfg.TEST.EVAL_PERIOD, self.cfg.DATASETS.TEST
        built = super().build_hooks()
        # Detectron2 evaluates after everything else, and then writes out what was logged.
        split = next(i for i, hook in enumerate(built) if isinstance(hook, hooks.EvalHook))
        step, (evaluation, *writers) = built[:split], built[split:]
        after_checkpoint: list[HookBase] = [evaluation]
        if comm.is_main_process() and test:
            model = self._trainer.model
            description = self.checkpointer.description
            if self.cfg.TEST.SAVE_BEST:
                best = BestModel(model, self.cfg.OUTPUT_DIR, description=description)
                after_checkpoint.append(BestCheckpointer(period, best, primary_metric(self.cfg)))
            after_checkpoint.append(
                SheetWriter(
                    period,
                    lambda: draw_sheets(self.cfg, _unwrap(model)),
                    os.path.join(self.cfg.OUTPUT_DIR, "sheets"),
                )
            )
        return [
            # The gradients first, because evaluations need memory, too.
            ZeroGradHook(), StepSeed(), LossGuard(self.cfg.OUTPUT_DIR), *step, self.stop_request,
            *after_checkpoint, StepRecord(after_checkpoint, period),
            SkippedClipsReport(skipped_file(self.cfg)), *writers,
            *([ModelCard(self.cfg)] if comm.is_main_process() else []),
        ]  # fmt: skip

    def _build_checkpointer(self) -> AVSCheckpointer:
        checkpointer = AVSCheckpointer(
            self._trainer.model,
            self.cfg.OUTPUT_DIR,
            keep=self.cfg.SOLVER.KEEP_CHECKPOINTS,
            description=run_metadata(self.cfg),
            trainer=weakref.proxy(self),
        )
        # Detectron2 v0.6 leaves the optimizer out of what it saves; later versions do not.
        if "optimizer" not in self.state_dict().get("_trainer", {}):
            checkpointer.add_checkpointable("optimizer", self._trainer.optimizer)
            if scaler := getattr(self._trainer, "grad_scaler", None):
                checkpointer.add_checkpointable("grad_scaler", scaler)
        return checkpointer


def skipped_file(cfg) -> str:
    """Where a run names the clips that it could not read."""
    return os.path.join(cfg.OUTPUT_DIR, "skipped_clips.txt")


def primary_metric(cfg) -> str:
    """The metric that picks the best checkpoint: J&F or mIoU of the first test set."""
    first = cfg.DATASETS.TEST[0]
    evaluator = find_evaluator(first)
    metric = f"{evaluator.task}/{evaluator.primary_metric}"
    return metric if len(cfg.DATASETS.TEST) == 1 else f"{first}/{metric}"


@torch.no_grad()
def predict_some(cfg, model: nn.Module, count: int) -> Iterator[tuple[dict, dict[str, Any]]]:
    """What a model says of clips of the first test set, evenly spread.

    Args:
        cfg: names the data set.
        model: put in evaluation mode meanwhile.
        count: the most clips to take.

    Yields:
        The record of a clip and the model's output for it.
    """
    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    mapper = DropUnreadable(build_mapper(cfg, False), skipped_file(cfg))
    count = min(count, len(records))
    was_training = model.training
    model.eval()
    for index in range(count):
        record = records[index * len(records) // count]
        if clip := mapper(record):
            yield record, model([clip])[0]
    model.train(was_training)


def draw_sheets(cfg, model: nn.Module) -> dict[str, Any]:
    """Draw ``TEST.NUM_SHEETS`` clips of the first test set beside what the model says of them.

    Returns:
        Pictures (h, w, 3) uint8 RGB by the clip's name.
    """
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    return {
        record["video_id"].replace("/", "_"): prediction_sheet(record, output, metadata)
        for record, output in predict_some(cfg, model, cfg.TEST.NUM_SHEETS)
    }


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
