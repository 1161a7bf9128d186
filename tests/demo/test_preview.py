import numpy as np
import pytest
from PIL import Image

from qdformer.demo import preview as module
from qdformer.demo.preview import WIDTH, Preview


@pytest.fixture
def frames(predictor, video):
    return list(predictor(video))


def written(predictor, frames, path, every=1.0):
    preview = Preview(predictor.metadata, every)
    for frame in frames:
        preview.add(frame)
    preview.write(path)
    with Image.open(path) as file:
        pictures, durations = [], []
        for index in range(getattr(file, "n_frames", 1)):
            file.seek(index)
            pictures.append(np.asarray(file.convert("RGB")).astype(int))
            durations.append(file.info["duration"])
    return pictures, durations


@pytest.mark.parametrize(("every", "shown"), [(1.0, 1000), (0.5, 500), (0.02, 100)])
def test_each_frame_is_shown_for_its_time(predictor, frames, tmp_path, every, shown):
    pictures, durations = written(predictor, frames, tmp_path / "a.gif", every)
    assert durations == [shown] * 3
    assert {picture.shape for picture in pictures} == {(WIDTH + 72, WIDTH, 3)}


def test_the_second_that_is_shown_is_framed_in_the_sound(predictor, frames, tmp_path):
    pictures, _ = written(predictor, frames, tmp_path / "a.gif")
    for index, picture in enumerate(pictures):
        top = picture[WIDTH + 1].min(axis=1) > 200
        left, right = (round(WIDTH * place / 3) for place in (index, index + 1))
        assert top[left + 2 : right - 2].mean() > 0.9
        assert top[: max(left - 2, 0)].sum() + top[right + 3 :].sum() == 0


def test_a_long_video_is_shown_from_its_beginning(predictor, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    short, _ = written(predictor, frames[:2], tmp_path / "a.gif")
    long, _ = written(predictor, frames, tmp_path / "b.gif")
    assert np.array_equal(short, long)
