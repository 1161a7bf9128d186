"""Damaged videos give pictures or one sentence, soon, and never anything else."""

import io
import signal
from contextlib import contextmanager
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from qdformer.errors import InputError
from qdformer.video.reader import VideoFile
from qdformer.video.writer import write_annotated_video
from tests.io.hostile_media import MUTATIONS
from tests.video.video_samples import Film, Track, make, shades, tone

KINDS = {
    "mp4": ("libx264", "aac"),
    "webm": ("libvpx", "libopus"),
    "matroska": ("mjpeg", "flac"),
    "avi": ("mpeg4", "pcm_s16le"),
    "gif": ("gif", None),
}
ROUNDS = 60
SECONDS = 10


class Late(BaseException):
    """Not an Exception, which readers of damaged files pass over."""


@contextmanager
def within(seconds):
    def stop(*_):
        raise Late(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@cache
def valid():
    files = {}
    for kind, (codec, sound) in KINDS.items():
        tracks = [Track(tone(300, 0.6, 48000, 2), 48000, sound)] if sound else []
        pix_fmt, base = ("rgb8", 100) if codec == "gif" else (None, 1000)
        film = Film(shades(6, 32, 48), codec, pix_fmt, time_base=Fraction(1, base), tracks=tracks)
        files[kind] = make(io.BytesIO(), film, kind).getvalue()
    return files


def mutated(kind, seed):
    files, rng = valid(), np.random.default_rng(seed)
    data = bytearray(files[kind])
    for _ in range(rng.integers(1, 4)):
        mutation = [*MUTATIONS, _swap, _huge_size][rng.integers(len(MUTATIONS) + 2)]
        data = mutation(data, files, rng) if data else data
    return bytes(data)


def _swap(data, files, rng):
    length = int(rng.integers(1, max(2, len(data) // 3)))
    a, b = sorted(rng.integers(0, max(1, len(data) - length), 2))
    data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]
    return data


_NAMES = [b"moov", b"stsz", b"stco", b"stts", b"mvhd", b"tkhd", b"avc1", b"mp4a", b"ctts", b"stsc"]
_NAMES += [b"LIST", b"strf", b"strh", b"idx1", b"avih", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b"]


def _huge_size(data, files, rng):
    """After or before the name of a block, where sizes, counts and rates are."""
    names = [name for name in _NAMES if name in data]
    if names:
        start = data.index(names[rng.integers(len(names))]) + 4 * int(rng.integers(-1, 9))
        value = int(rng.choice([0, 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1]))
        data[max(0, start) : max(0, start) + 4] = value.to_bytes(4, rng.choice(["big", "little"]))
    return data


def check(content, folder, seed):
    try:
        video = VideoFile(io.BytesIO(content))
    except InputError as error:
        assert str(error).startswith("the file: ") and "\n" not in str(error)
        return False
    times = []
    try:
        for picture in video.pictures():
            assert picture.image.shape == (video.height, video.width, 3)
            assert picture.image.dtype == np.uint8
            times.append(picture.time)
        assert times[0] == 0 and times == sorted(set(times))
        for count, _ in enumerate(video.sampled(1.0)):
            assert count <= times[-1] + 100
            if count > 1000:
                break
        if seed % 4 == 0:
            write_annotated_video(folder / "out.mp4", video, video.pictures())
    except InputError:
        pass
    try:
        sound = video.sound()
        for start in range(-8000, 32000, 8000):
            assert np.isfinite(sound.read(start, 8000)).all()
    except InputError:
        pass
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_videos(tmp_path, kind):
    assert check(valid()[kind], tmp_path, 0)
    read = 0
    for seed in range(ROUNDS):
        with within(SECONDS):
            try:
                read += check(mutated(kind, seed), tmp_path, seed)
            except Exception as error:
                raise AssertionError(f"{kind}, seed {seed}") from error
    assert read > ROUNDS // 10
