"""What happens beside the training steps: memory, pictures, the names of clips left out."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class GradientRelease(HookBase):
    """Frees the gradients once they are used, not when the next ones are computed."""

    def after_step(self) -> None:
        """The next forward is where the most memory is needed."""
        self.trainer.optimizer.zero_grad(set_to_none=True)


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
            cv2.imwrite(str(self.folder / f"{name}.png"), picture[..., ::-1])
            self.trainer.storage.put_image(f"sheets/{name}", picture.transpose(2, 0, 1))

    def after_step(self) -> None:
        """Draw after the evaluation of this step."""
        step = self.trainer.iter + 1
        if self.period and step % self.period == 0 and step != self.trainer.max_iter:
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
