"""A model and an archive of short videos of several sizes and lengths."""

import numpy as np
import pytest

from qdformer.predictor import AudioVisualPredictor
from qdformer.video.writer import write_video
from tests.videos import save_described

# Seconds, height and width of each; the longest takes several windows.
VIDEOS = {
    "a.mp4": (2, 64, 64),
    "b.mp4": (12, 48, 64),
    "deeper/c.mp4": (1, 64, 64),
    "deeper/d.mkv": (3, 64, 48),
}


@pytest.fixture(scope="session")
def weights(composed, tmp_path_factory):
    return save_described(
        tmp_path_factory.mktemp("trained") / "model.safetensors",
        "MODEL.QDFORMER.CLASS_THRESHOLD", 0.005,
    )  # fmt: skip


@pytest.fixture(scope="session")
def predictor(weights):
    return AudioVisualPredictor(weights)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A folder of them."""
    folder, rng = tmp_path_factory.mktemp("archive"), np.random.default_rng(0)
    for name, (seconds, height, width) in VIDEOS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        cells = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = cells.repeat(16, 0).repeat(16, 1)
        frames = (np.roll(picture, 8 * second, 1) for second in range(seconds) for _ in range(2))
        sound = 0.1 * rng.standard_normal(seconds * 16000).astype(np.float32)
        write_video(path.with_suffix(".mp4"), frames, 2.0, sound)
        path.with_suffix(".mp4").rename(path)
    return folder
