"""What a trained model is, in the form that model hubs show beside its weights."""

import math
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase

from qdformer.checkpoint.hub import FILE as WEIGHTS
from qdformer.evaluation.registry import find_evaluator
from qdformer.evaluation.track_evaluation import TASK as TRACKS
from qdformer.io.atomic_write import atomic_write

FILE = "README.md"


class ModelCard(HookBase):
    """Writes the card beside the final model, with the results of the last evaluation."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: of the run.
        """
        self.cfg = cfg

    def after_train(self) -> None:
        """Not where the run was stopped before its last step."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            results = getattr(self.trainer, "_last_eval_results", None) or {}
            with atomic_write(Path(self.cfg.OUTPUT_DIR, FILE)) as partial:
                partial.write_text(model_card(self.cfg, results), encoding="utf-8")


def _rows(dataset: str, tasks: dict[str, dict[str, float]]) -> Iterator[str]:
    """The metrics of the data set's own task, the headline first and bold, and those of tracks."""
    evaluator = find_evaluator(dataset)
    metrics = tasks.get(evaluator.task, {})
    first = evaluator.primary_metric
    if math.isfinite(metrics.get(first, math.nan)):
        yield f"| {dataset} | **{first}** | **{metrics[first]:.1f}** |"
    others = {name: value for name, value in metrics.items() if name not in (first, "frames")}
    others |= {f"{name} of tracks": value for name, value in tasks.get(TRACKS, {}).items()}
    for name, value in others.items():
        if math.isfinite(value):
            yield f"| {dataset} | {name} | {value:.1f} |"


def model_card(cfg: CfgNode, results: dict[str, Any]) -> str:
    """The card as Markdown, with the head that the Hugging Face Hub reads.

    Args:
        cfg: of the run.
        results: of its last evaluation, by task, or by data set and task; may be empty.
    """
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_classes[1:]
    trained_on = ", ".join(cfg.DATASETS.TRAIN)
    started = ", ".join(
        Path(path).name for path in (cfg.MODEL.WEIGHTS, cfg.MODEL.AUDIO.WEIGHTS) if path
    )
    if len(cfg.DATASETS.TEST) == 1 and results:
        results = {cfg.DATASETS.TEST[0]: results}
    rows = [row for dataset, tasks in results.items() for row in _rows(dataset, tasks)]
    evaluated = ["| data set | metric | % |", "|---|---|---|", *rows]
    versions = f"torch {torch.__version__}, Detectron2 {detectron2.__version__}"
    return "\n".join(
        [
            "---",
            "library_name: qdformer",
            "pipeline_tag: image-segmentation",
            "tags: [audio-visual-segmentation, detectron2]",
            "---",
            "",
            f"# {cfg.MODEL.META_ARCHITECTURE} trained on {trained_on}",
            "",
            "Segments, in every frame of a video with sound, the objects that sound at that "
            "moment, and names them: QDFormer (Li et al., CVPR 2024).",
            "",
            "```",
            f"qdformer predict --input video.mp4 --weights {WEIGHTS}",
            "```",
            "",
            f"**Classes** ({len(classes)}): {', '.join(classes)}.",
            "",
            "**License**: to be filled in; it cannot be wider than that of the training data and "
            "of the weights that training started from.",
            "",
            "## Results",
            "",
            *(evaluated if rows else ["Not evaluated."]),
            "",
            "## Training",
            "",
            f"- {cfg.SOLVER.MAX_ITER} iterations of {cfg.SOLVER.IMS_PER_BATCH} clips of up to "
            f"{cfg.INPUT.NUM_FRAMES} frames, seed {cfg.SEED}",
            f"- backbone {cfg.MODEL.BACKBONE.NAME}, audio network {cfg.MODEL.AUDIO.NAME}, started "
            f"from {started or 'random weights'}",
            f"- {versions}, Python {platform.python_version()}, qdformer {version('qdformer')}; "
            f"device {cfg.MODEL.DEVICE}",
            f"- all settings: `config.yaml`, which `{WEIGHTS}` carries, too",
            "",
        ]
    )
