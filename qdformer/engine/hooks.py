"""What happens beside the training steps: seeds, memory, pictures, ends before the last step."""

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from qdformer.engine.non_finite import step_seed
from qdformer.io.image import write_image

logger = logging.getLogger(__name__)


class ZeroGradHook(HookBase):
    """Frees the gradients once they are used, not when the next ones are computed."""

    def after_step(self) -> None:
        """The next forward is where the most memory is needed."""
        self.trainer.optimizer.zero_grad(set_to_none=True)


class StepSeed(HookBase):
    """Makes what the model draws in a step a function of the run's seed and the iteration."""

    def before_step(self) -> None:
        """What was drawn before, by an evaluation or by a run that was cut off, has no part."""
        seed_all_rng(step_seed(self.trainer.seed, self.trainer.iter))


class Preempted(SystemExit):
    """The run was asked to stop; its exit code says that it can be resumed."""

    def __init__(self):
        super().__init__(os.EX_TEMPFAIL)


class PreemptionHook(HookBase):
    """Ends the run after the current step on SIGTERM or Ctrl-C; the second Ctrl-C kills.

    It comes after the hooks that belong to the step and before the evaluation, which is left at
    once: its result would be lost and is computed again by who resumes. Whoever stops a run of
    several processes has to ask all of them, as launchers do.
    """

    def __init__(self):
        self.asked = self.immediate = False
        self.handlers = {}

    def __enter__(self) -> "PreemptionHook":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def before_step(self) -> None:
        """From here on the step is finished first."""
        self.immediate = False

    def after_step(self) -> None:
        """Stop, if any process was asked to.

        Raises:
            Preempted: the step is complete but for its evaluation.
        """
        if any(comm.all_gather(self.asked)):
            raise Preempted
        self.immediate = True

    def _ask(self, number: int, _frame) -> None:
        signal.signal(number, self.handlers[number])
        logger.warning("%s: saving and stopping", signal.Signals(number).name)
        if self.immediate:
            raise Preempted
        self.asked = True


class StepRecord(HookBase):
    """Remembers which steps are complete with their evaluation, and completes the one that is not.

    Checkpoints are written before the evaluation of their step. A run that is killed in between
    evaluates when it is resumed; one that is killed later does not have to. After the last step
    there are two checkpoints, of which a kill may leave the first alone.
    """

    def __init__(self, evaluation: Sequence[HookBase], period: int):
        """
        Args:
            evaluation: the hooks of a step that come after its checkpoint.
            period: iterations between evaluations; 0 for none.
        """
        self.evaluation, self.period = evaluation, period
        self.completed = 0

    def before_train(self) -> None:
        """Complete the step after which the checkpoint was written."""
        trainer = self.trainer
        if trainer.start_iter >= trainer.max_iter:
            trainer.checkpointer.save("model_final", iteration=trainer.start_iter - 1)
        elif self.completed < trainer.start_iter:
            trainer.iter = trainer.storage.iter = trainer.start_iter - 1
            for hook in self.evaluation:
                hook.after_step()
            self.after_step()
            trainer.iter = trainer.storage.iter = trainer.start_iter

    def after_step(self) -> None:
        """Keep the result of an evaluation."""
        self.completed = self.trainer.iter + 1
        if _is_evaluated(self.trainer, self.period):
            self.trainer.save()

    def state_dict(self) -> dict[str, int]:
        """What the checkpoint keeps."""
        return {"completed": self.completed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up what the checkpoint kept."""
        self.completed = state["completed"]


class SheetWriter(HookBase):
    """Draws predictions beside ground truth after each evaluation, to disk and TensorBoard."""

    def __init__(self, period: int, draw: Callable[[], dict], folder: str):
        """
        Args:
            period: iterations between evaluations; 0 draws at the end only.
            draw: returns pictures (h, w, 3) uint8 RGB by name.
            folder: where the PNGs go; a later picture of the same clip replaces an earlier one.
        """
        self.period, self.draw, self.folder = period, draw, Path(folder)

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.draw().items():
            write_image(self.folder / f"{name}.png", picture)
            self.trainer.storage.put_image(f"sheets/{name}", picture.transpose(2, 0, 1))

    def after_step(self) -> None:
        """Draw after the evaluation of this step."""
        if _is_evaluated(self.trainer, self.period):
            self._write()

    def after_train(self) -> None:
        """Draw after the last evaluation."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._write()


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's, which remembers across a resume how good the best model was."""

    def state_dict(self) -> dict[str, float | int | None]:
        """What the checkpoint keeps."""
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        """Take up what the checkpoint kept."""
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


class SkippedClipsReport(HookBase):
    """Counts and names, at the end, the clips that could not be read."""

    def __init__(self, file: str):
        """
        Args:
            file: where the mapper names them, a line each.
        """
        self.file = Path(file)

    def after_train(self) -> None:
        """Report."""
        if comm.is_main_process() and self.file.exists():
            lines: list[str] = self.file.read_text().splitlines()
            clips = Counter(line.split("\t")[0] for line in lines)
            logger.warning(
                "%d clips could not be read and were skipped %d times: %s (reasons in %s)",
                len(clips), len(lines), ", ".join(sorted(clips)), self.file,
            )  # fmt: skip


def _is_evaluated(trainer: TrainerBase, period: int) -> bool:
    """Whether Detectron2 evaluates after this step; after the last one it does so by itself."""
    step = trainer.iter + 1
    return period > 0 and step % period == 0 and step != trainer.max_iter
