"""A checkpoint of a network that finds something everywhere, and a short video with sound."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from qdformer.audio.log_mel import read_waveform
from qdformer.checkpoint.metadata import run_metadata
from qdformer.checkpoint.weights import write_weights
from qdformer.io.image import read_image
from qdformer.predictor import AudioVisualPredictor
from qdformer.video.writer import write_video
from tests.samples import small_config
from tests.videos import save_described, write_lossless

CLASSES = ["background", "bell", "drum", "siren", "<b>bird</b>"]
COLORS = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
SECONDS, SIZE = 3, (96, 128)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Untrained, so that what it finds makes no sense; of every pixel most tokens are sure."""
    MetadataCatalog.get("found_everywhere").set(stuff_classes=CLASSES, stuff_colors=COLORS)
    cfg = small_config(
        "DATASETS.TRAIN", ("found_everywhere",),
        "MODEL.QDFORMER.CLASS_THRESHOLD", 0.0,
        "INPUT.MIN_SIZE_TEST", 64,
        "INPUT.MAX_SIZE_TEST", 96,
    )  # fmt: skip
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    write_weights(build_model(cfg).state_dict(), path, run_metadata(cfg))
    return path


@pytest.fixture(scope="session")
def short_video(tmp_path_factory):
    """3 s at 10 frames per second; a low tone all the time, a hiss in its second half."""
    path = tmp_path_factory.mktemp("video") / "short.mp4"
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (SIZE[0] // 16, SIZE[1] // 16, 3), dtype=np.uint8)
    picture = cells.repeat(16, 0).repeat(16, 1)
    time = np.arange(SECONDS * 16000) / 16000
    sound = 0.2 * np.sin(2 * np.pi * 330 * time)
    sound += 0.1 * rng.standard_normal(len(time)) * (time > SECONDS / 2)
    frames = (np.roll(picture, shift, axis=1) for shift in range(SECONDS * 10))
    write_video(path, frames, 10.0, sound.astype(np.float32))
    return path


@pytest.fixture(scope="session")
def trained(composed, tmp_path_factory):
    """A checkpoint with the classes of tiny_*, of a network that is confident of what it says."""
    return save_described(
        tmp_path_factory.mktemp("trained") / "model.safetensors",
        "MODEL.QDFORMER.CLASS_THRESHOLD", 0.005,
    )  # fmt: skip


@pytest.fixture(scope="session")
def predictor(trained):
    return AudioVisualPredictor(trained)


@pytest.fixture(scope="session")
def video(composed, tmp_path_factory):
    """3 s of five pictures each, with sound, that lose nothing."""
    record = DatasetCatalog.get("tiny_avss_test")[0]
    frames = [read_image(name) for name in record["file_names"]]
    pictures = [np.roll(frame, shift, axis=1) for frame in frames for shift in range(5)]
    waveform = read_waveform(record["audio_file_name"])[: len(frames) * 16000]
    path = tmp_path_factory.mktemp("videos") / "clip.mkv"
    return write_lossless(path, pictures, waveform, rate=5)
