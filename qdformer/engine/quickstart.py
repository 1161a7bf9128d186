"""The whole path on a small scale: compose, train, evaluate with right and wrong sound, show."""

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from torch import nn

from qdformer.audio.log_mel import read_waveform
from qdformer.engine.trainer import Trainer, predict_some
from qdformer.evaluation.language_evaluation import MEASURES
from qdformer.io.image import read_image, write_image
from qdformer.synthetic.composer import ComposeOptions, compose
from qdformer.synthetic.variants import register_sound_variants
from qdformer.video.writer import write_video
from qdformer.visualization.overlay import overlay
from qdformer.visualization.prediction_sheet import prediction_sheet

logger = logging.getLogger(__name__)

CLIPS = {"train": 1200, "val": 100, "test": 100}
SOURCES = (1, 3)
SHEETS = 6
SOUNDS = ("right sound", "silence", "another clip's sound")


@dataclass(frozen=True)
class Row:
    """How well a model does with one kind of sound, in per cent.

    Attributes:
        sound: of ``SOUNDS``.
        miou: over all classes, background among them.
        foreground: mIoU over the sounding classes alone.
    """

    sound: str
    miou: float
    foreground: float


def compose_quickstart(root: Path, size: int, frames: int) -> None:
    """Compose the multi-source AVSS set of the quickstart from what is built in.

    Args:
        root: of the data set; one that is there already is kept.
        size: of the frames, in pixels.
        frames: of a clip.
    """
    options = ComposeOptions(output=root, frames=frames, size=size, sources=SOURCES, clips=CLIPS)
    compose(options)


def evaluate_sounds(cfg, model: nn.Module) -> tuple[list[Row], dict[str, float]]:
    """Evaluate the first test set with its sound, with silence and with another clip's sound.

    Args:
        cfg: names the test set.
        model: a trained model.

    Returns:
        A row for each of ``SOUNDS``, and what :class:`LanguageEvaluator` says of the right sound;
        nothing for a model without a codebook.
    """
    names = register_sound_variants(cfg.DATASETS.TEST[0], cfg.OUTPUT_DIR)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = tuple(names)
    results = Trainer.test(cfg, model)
    rows = [
        Row(sound, *(results[name]["avs_semantic"][key] for key in ("mIoU", "foreground_mIoU")))
        for sound, name in zip(SOUNDS, names)
    ]
    return rows, results[names[0]].get("language", {})


def table(rows: list[Row], language: dict[str, float]) -> str:
    """The rows, and what the codebook does, as text."""
    lines = [f"{'':24}{'mIoU':>8}{'foreground mIoU':>18}"]
    lines += [f"{row.sound:24}{row.miou:8.1f}{row.foreground:18.1f}" for row in rows]
    if language:
        lines.append("")
    lines += [f"{meaning:76}{language[key]:8.4g}" for key, meaning in MEASURES.items() if language]
    return "\n".join(lines)


def show(cfg, model: nn.Module, folder: Path) -> list[Path]:
    """Draw test clips beside their ground truth, and one as a video with its sound.

    Args:
        cfg: names the test set.
        model: a trained model.
        folder: where the pictures and the video go.

    Returns:
        The files.
    """
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for record, output in predict_some(cfg, model, SHEETS):
        path = folder / f"{record['video_id']}.png"
        write_image(path, prediction_sheet(record, output, metadata))
        files.append(path)
        if len(files) == 1:
            files.append(path.with_suffix(".mp4"))
            _write_clip(files[-1], record, output, metadata)
    return files


def _write_clip(path: Path, record: dict[str, Any], output, metadata) -> None:
    frames = (
        overlay(read_image(name), labels, metadata)
        for name, labels in zip(record["file_names"], output["sem_seg"].cpu().numpy())
    )
    write_video(path, frames, 1.0, read_waveform(record["audio_file_name"]))


def save_table(rows: list[Row], language: dict[str, float], path: Path) -> None:
    """Write the same numbers as JSON."""
    # What no token said anything of has no number.
    known = {key: value if math.isfinite(value) else None for key, value in language.items()}
    numbers = {"sounds": [vars(row) for row in rows], "language": known}
    path.write_text(json.dumps(numbers, indent=1) + "\n")
