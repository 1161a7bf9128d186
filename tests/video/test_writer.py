import struct

import av
import numpy as np
import pytest

from qdformer.errors import InputError
from qdformer.video.writer import write_video

RATE = 16000
AAC_FRAME = 1024 / RATE
COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (240, 240, 240), (128, 90, 10)]


def frames_of(colors, height=64, width=96):
    for color in colors:
        yield np.full((height, width, 3), color, dtype=np.uint8)


def tone(hertz, seconds, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(
        np.float32
    )


def read(path):
    """The pictures (P, H, W, 3), their times (s), the picture's length (s) and the samples."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        decoded = list(file.decode(stream))
        seconds = float(stream.duration * stream.time_base)
        sound = None
        if file.streams.audio:
            file.seek(0)
            sound = np.concatenate([f.to_ndarray() for f in file.decode(audio=0)], axis=1)[0]
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    return pictures, [frame.time for frame in decoded], seconds, sound


@pytest.mark.parametrize(
    ("fps", "repeats"), [(1, 10), (3, 4), (10, 1), (25, 1), (29.97, 1), (0.5, 20), (7.5, 2)]
)
def test_each_frame_is_shown_for_its_time(tmp_path, fps, repeats):
    path = tmp_path / "clip.mp4"
    write_video(path, frames_of(COLORS), fps)
    pictures, times, seconds, sound = read(path)

    assert sound is None
    assert pictures.shape == (5 * repeats, 64, 96, 3)
    assert seconds == pytest.approx(5 / fps, abs=1e-3)
    assert len(pictures) / seconds >= 9.99
    for picture, time in zip(pictures, times, strict=True):
        shown = COLORS[int(time * fps + 1e-3)]
        assert np.abs(picture[8:-8, 8:-8].astype(int) - shown).max() <= 6


@pytest.mark.parametrize("given_seconds", [5, 2, 9], ids=["equal", "too short", "too long"])
def test_sound_is_as_long_as_the_picture(tmp_path, given_seconds):
    path = tmp_path / "clip.mp4"
    write_video(path, frames_of(COLORS), 1, tone(440, given_seconds))
    _, _, seconds, sound = read(path)

    assert seconds == pytest.approx(5)
    assert abs(len(sound) / RATE - 5) <= AAC_FRAME
    heard = min(given_seconds, 5)
    before, after = sound[: heard * RATE - 1024], sound[heard * RATE + 1024 :]
    assert np.sqrt(np.mean(before**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert np.abs(after).max(initial=0) < 0.01


def test_sound_keeps_its_pitch_and_its_place(tmp_path):
    path = tmp_path / "clip.mp4"
    pitches = [440, 1000, 250]
    waveform = np.concatenate([tone(hertz, 1) for hertz in pitches])
    write_video(path, frames_of(COLORS[:3]), 1, waveform)
    sound = read(path)[3]

    for second, hertz in enumerate(pitches):
        spectrum = np.abs(np.fft.rfft(sound[second * RATE : (second + 1) * RATE]))
        assert spectrum.argmax() == pytest.approx(hertz, abs=2)
    assert np.corrcoef(sound[: 3 * RATE], waveform)[0, 1] > 0.98


def test_loud_sound_is_clipped_not_wrapped(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, frames_of(COLORS[:1]), 1, tone(300, 1, amplitude=4.0))
    sound = read(path)[3][2048 : RATE - 2048]
    assert 0.85 < np.sqrt(np.mean(sound**2)) < 1.1


@pytest.mark.parametrize(("height", "width"), [(63, 65), (64, 33), (31, 64), (1, 1)])
def test_odd_sizes_repeat_their_last_row_and_column(tmp_path, height, width):
    path = tmp_path / "clip.mp4"
    write_video(path, frames_of(COLORS[:2], height, width), 10)
    pictures = read(path)[0]
    assert pictures.shape[1:3] == (height + height % 2, width + width % 2)
    assert np.abs(pictures[0, -1, -1].astype(int) - COLORS[0]).max() <= 6


def test_frames_are_taken_one_at_a_time(tmp_path):
    alive = []

    def counted():
        for frame in frames_of(COLORS * 6):
            alive.append(0)
            yield frame

    class Sound(np.ndarray):
        taken = []

        def __getitem__(self, key):
            self.taken.append((len(alive), key.stop))
            return super().__getitem__(key)

    write_video(tmp_path / "clip.mp4", counted(), 10, tone(440, 3).view(Sound))
    # Of the sound, a hundredth of a second more than of the frames.
    assert all((count - 1) * 1600 < stop <= count * 1600 + 160 for count, stop in Sound.taken)
    assert Sound.taken[-1][0] == 30 and Sound.taken[-1][1] >= 48000


def test_a_browser_can_start_before_the_end_is_loaded(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, frames_of(COLORS), 1, tone(440, 5))
    content, boxes, position = path.read_bytes(), [], 0
    while position < len(content):
        size, name = struct.unpack(">I4s", content[position : position + 8])
        boxes.append(name)
        position += size
    assert boxes.index(b"moov") < boxes.index(b"mdat")
    with av.open(str(path)) as file:
        assert [s.codec_context.name for s in file.streams] == ["h264", "aac"]
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("older", [None, b"older video"])
def test_a_failing_write_leaves_the_folder_as_it_was(tmp_path, older):
    path = tmp_path / "clip.mp4"
    if older:
        path.write_bytes(older)

    def broken():
        yield from frames_of(COLORS)
        raise RuntimeError("camera unplugged")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="unplugged"):
        write_video(path, broken(), 1, tone(440, 5))
    assert sorted(tmp_path.iterdir()) == before
    assert not older or path.read_bytes() == older


def test_a_complete_write_replaces_the_older_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older video")
    write_video(path, frames_of(COLORS), 1)
    assert list(tmp_path.iterdir()) == [path]
    assert len(read(path)[0]) == 50


@pytest.mark.parametrize(
    ("name", "frames", "fps", "words"),
    [
        ("absent/clip.mp4", [(8, 8)], 1, "folder .*absent does not exist"),
        ("clip.avi", [(8, 8)], 1, r"ends in \.mp4"),
        ("clip.mp4", [], 1, "no frames"),
        ("clip.mp4", [(8, 8), (8, 10)], 1, r"frame 1 is uint8 of shape \(8, 10, 3\)"),
        ("clip.mp4", [(8, 8)], 0, "0 frames per second"),
        ("clip.mp4", [(8, 8)], float("nan"), "nan frames per second"),
        ("clip.mp4", [(8, 8)], 1e-4, "0.0001 frames per second .* 0.01 to 1000"),
        ("clip.mp4", [(8, 8)], 1e12, "frames per second"),
        ("clip.mp4", [(0, 8)], 1, r"frame 0 is uint8 of shape \(0, 8, 3\)"),
    ],
)
def test_bad_input_is_named(tmp_path, name, frames, fps, words):
    pictures = [np.zeros((*size, 3), dtype=np.uint8) for size in frames]
    with pytest.raises(InputError, match=words) as error:
        write_video(tmp_path / name, pictures, fps)
    assert str(tmp_path / name) in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))]
)
def test_only_rgb_bytes(tmp_path, frame):
    with pytest.raises(InputError, match="frame 0 is .*give .* uint8 RGB"):
        write_video(tmp_path / "clip.mp4", [frame], 1)


def test_rates_of_numpy_are_rates(tmp_path):
    write_video(tmp_path / "clip.mp4", frames_of(COLORS), np.float32(12.5))
    assert len(read(tmp_path / "clip.mp4")[0]) == len(COLORS)
