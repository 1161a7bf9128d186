"""Files stand in for a camera and a microphone."""

import numpy as np
import pytest

from qdformer.commands import demo
from qdformer.errors import InputError
from qdformer.video.capture import record
from qdformer.video.reader import VideoFile
from tests.videos import write_lossless


@pytest.fixture
def device(tmp_path):
    """4 s of odd-sized pictures that grow brighter, 10 a second, and a tone that rises."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 100, (4, 6, 1), dtype=np.uint8).repeat(9, 0).repeat(9, 1).repeat(3, 2)
    pictures = [cells[:, :53] + np.uint8(3 * number) for number in range(40)]
    time = np.arange(4 * 16000) / 16000
    sound = 0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)
    return write_lossless(tmp_path / "device.mkv", pictures, sound.astype(np.float32), rate=10)


def test_pictures_and_sound_are_those_of_the_devices(device, tmp_path):
    told = []
    record(tmp_path / "a.mkv", str(device), str(device), 2.5, told.append)
    given, recorded = VideoFile(device), VideoFile(tmp_path / "a.mkv")
    assert (recorded.height, recorded.width) == (36, 52)
    pictures = list(recorded.pictures())
    assert [round(picture.time, 3) for picture in pictures] == [k / 10 for k in range(25)]
    for picture, original in zip(pictures, given.pictures()):
        gap = picture.image.astype(int) - original.image[:, :52].astype(int)
        assert abs(gap).mean() < 4
    sounds = [video.sound().read(0, 40000) for video in (recorded, given)]
    assert np.corrcoef(*sounds)[0, 1] > 0.98
    # No more than was asked for, but for the last frame of the encoder.
    assert abs(recorded.sound().read(42000, 8000)).max() < 0.01
    assert told == sorted(told) and told[-1] == pytest.approx(2.4)


def test_without_a_microphone_it_is_silent(device, tmp_path):
    record(tmp_path / "a.mkv", str(device), "none", 1.0)
    recorded = VideoFile(tmp_path / "a.mkv")
    assert recorded.num_sound_tracks == 0 and len(list(recorded.pictures())) == 10


def test_what_ends_early_is_kept(device, tmp_path):
    record(tmp_path / "a.mkv", str(device), str(device), 9.0)
    assert len(list(VideoFile(tmp_path / "a.mkv").pictures())) == 40


@pytest.mark.parametrize(
    ("camera", "microphone", "seconds", "words"),
    [
        ("/dev/no-camera", "none", 1.0, "/dev/no-camera: the camera cannot be opened"),
        ("device", "/dev/no-microphone", 1.0, "no-microphone: the microphone cannot be opened"),
        ("device", "none", 0.0, "0.0 seconds were asked for"),
    ],
)
def test_what_is_not_there_is_named(device, tmp_path, camera, microphone, seconds, words):
    camera = str(device) if camera == "device" else camera
    with pytest.raises(InputError, match=words):
        record(tmp_path / "a.mkv", camera, microphone, seconds)
    assert not (tmp_path / "a.mkv").exists()


def test_the_demo_segments_what_it_recorded(device, tmp_path, monkeypatch, capsys):
    seen = []

    def annotate_all(load, videos, output, options, sound_track):
        seen.extend(videos)
        return []

    options = ["--webcam", str(device), "--microphone", str(device), "--seconds", "1"]
    with pytest.raises(SystemExit, match="no-weights.pth"):
        demo.main([*options, "--weights", "no-weights.pth", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(demo, "load_model_config", lambda args: None)
    monkeypatch.setattr(demo, "annotate_all", annotate_all)
    assert demo.main([*options, "--output", str(tmp_path / "out")]) == 0
    (video,) = seen
    assert video.parent == tmp_path / "out" / "recordings" and VideoFile(
        video
    ).duration == pytest.approx(1, abs=0.1)
    with pytest.raises(SystemExit, match="name some with --input"):
        demo.main([])
    for threshold in ("nan", "-0.1", "1.5", "x"):
        with pytest.raises(SystemExit, match="2"):
            demo.main([*options, "--confidence-threshold", threshold])
