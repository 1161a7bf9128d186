"""The ends of the quickstart: the set that it is trained on, and what it shows."""

from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from torch import nn

from qdformer.audio.log_mel import read_waveform
from qdformer.engine.trainer import predict_some
from qdformer.io.image import read_image, write_image
from qdformer.synthetic.composer import ComposeOptions, compose
from qdformer.video.writer import write_video
from qdformer.visualization.overlay import overlay
from qdformer.visualization.prediction_sheet import prediction_sheet

CLIPS = {"train": 1200, "val": 100, "test": 100}
SOURCES = (1, 3)
SHEETS = 6


def compose_quickstart(root: Path, size: int, frames: int) -> None:
    """Compose the multi-source AVSS set of the quickstart from what is built in.

    Args:
        root: of the data set; one that is there already is kept.
        size: of the frames, in pixels.
        frames: of a clip.
    """
    options = ComposeOptions(output=root, frames=frames, size=size, sources=SOURCES, clips=CLIPS)
    compose(options)


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
