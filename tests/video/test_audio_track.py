from fractions import Fraction
from math import ceil

import av
import numpy as np
import pytest
import torch

from qdformer.audio.log_mel import resampler, resampling_ratio
from qdformer.video.audio_track import SoundTrack
from qdformer.video.reader import VideoFile
from tests.video.video_samples import Film, Track, make, shades, tone

RATES = [4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000]


def video_with(tmp_path, *tracks, seconds=2.0, sound_track=0, start=0):
    pictures = round(seconds * 10)
    pts = [start + index * 100 for index in range(pictures)]
    film = Film(shades(pictures, 16, 16), pts=pts, tracks=list(tracks))
    return VideoFile(make(tmp_path / "film.mkv", film, "matroska"), sound_track)


def hiss(seconds, rate, channels=2):
    rng = np.random.default_rng(rate)
    return 0.3 * rng.standard_normal((channels, round(seconds * rate)))


def whole(samples, rate):
    """(C, L) resampled at once."""
    mean = torch.from_numpy(samples.astype(np.float32).mean(axis=0))
    return mean.numpy() if rate == 16000 else resampler(resampling_ratio(rate))(mean).numpy()


@pytest.mark.parametrize("rate", RATES)
def test_pieces_are_those_of_the_whole_track(tmp_path, rate):
    samples = hiss(2, rate)
    video = video_with(tmp_path, Track(samples, rate))
    expected = np.pad(whole(samples, rate), (0, 2**21))
    length = ceil(2 * 16000)
    assert not expected[length:].any()
    rng = np.random.default_rng(0)

    found = video.sound().read(0, 40000)
    assert found.dtype == np.float32
    assert np.abs(found - expected[:40000]).max() < 1e-5
    for longest in (1, 700, 9000):
        sound, start, earliest = video.sound(), 0, 0
        for _ in range(60):
            count = int(rng.integers(0, longest + 1))
            piece = sound.read(start, count)
            assert np.abs(piece - expected[start : start + count]).max(initial=0) < 1e-5
            earliest = max(earliest, start - count)
            start = int(rng.integers(earliest, start + 2 * count + 1))


def test_a_piece_may_begin_before_the_sound(tmp_path):
    samples = hiss(1, 44100)
    sound = video_with(tmp_path, Track(samples, 44100)).sound()
    piece = sound.read(-800, 1600)
    assert not piece[:800].any()
    assert np.abs(piece[800:] - whole(samples, 44100)[:800]).max() < 1e-5
    assert not video_with(tmp_path, Track(samples, 44100)).sound().read(-99, 50).any()


def test_going_back_further_is_an_error(tmp_path):
    sound = video_with(tmp_path, Track(hiss(2, 8000), 8000)).sound()
    sound.read(16000, 100)
    sound.read(15900, 100)
    with pytest.raises(AssertionError):
        sound.read(15000, 100)


@pytest.mark.parametrize(
    ("sound_start", "picture_start"), [(0.5, 0), (0, 500), (0.25, 250), (1.5, 300)]
)
def test_sound_and_picture_keep_their_offset(tmp_path, sound_start, picture_start):
    samples = hiss(1, 16000, channels=1)
    track = Track(samples, 16000, start=sound_start)
    video = video_with(tmp_path, track, start=picture_start)
    ahead = round((sound_start - picture_start / 1000) * 16000)
    expected = np.zeros(48000, np.float32)
    begin, skipped = max(0, ahead), max(0, -ahead)
    expected[begin : begin + 16000 - skipped] = samples[0, skipped:]
    found = video.sound().read(0, 48000)
    # Matroska tells times to the millisecond.
    shift = min(range(-17, 18), key=lambda n: np.abs(np.roll(found, n) - expected).sum())
    assert np.abs(np.roll(found, shift) - expected)[40:-40].max() < 1e-5


def test_a_gap_is_silent_and_what_follows_keeps_its_time(tmp_path):
    samples = tone(440, 2, 16000)
    video = video_with(tmp_path, Track(samples, 16000, gap=(0.5, 0.8)))
    found = video.sound().read(0, 32000)
    assert not found[8000:12800].any()
    assert np.abs(found[:8000] - samples[0, :8000]).max() < 1e-5
    assert np.abs(found[12820:] - samples[0, 12820:]).max() < 0.05


def test_a_missing_packet_or_two_are_no_gap(tmp_path):
    samples = tone(440, 2, 16000)
    video = video_with(tmp_path, Track(samples, 16000, gap=(0.5, 0.54)))
    found = video.sound().read(0, 32000)
    assert np.abs(found[8000:8640]).max() > 0.3


@pytest.mark.parametrize("seconds", [0.3, 5.0])
def test_sound_that_is_shorter_or_longer_than_the_picture(tmp_path, seconds):
    samples = hiss(seconds, 16000, 1)
    found = video_with(tmp_path, Track(samples, 16000)).sound().read(0, 96000)
    expected = np.pad(samples[0], (0, 96000))[:96000]
    assert np.abs(found - expected).max() < 1e-5


def test_the_chosen_track_is_heard(tmp_path):
    tracks = [Track(tone(hertz, 2, rate), rate) for hertz, rate in ((300, 16000), (900, 48000))]
    for index, hertz in enumerate((300, 900)):
        found = video_with(tmp_path, *tracks, sound_track=index).sound().read(0, 16000)
        assert np.abs(np.fft.rfft(found)).argmax() == hertz


def test_what_is_not_finite_is_silent(tmp_path):
    samples = tone(440, 1, 44100, 2)
    samples[0, 1000], samples[1, 5000], samples[:, 9000] = np.nan, np.inf, (np.inf, -np.inf)
    samples[:, 12000:12005] = 3e38
    found = video_with(tmp_path, Track(samples, 44100)).sound().read(0, 16000)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0.3


# Front left and right, center, low-frequency effects, back left and right (ITU-R BS.775).
FIVE_ONE = np.array([[0.5, 0.5, 0.5**0.5, 0, 0.5**1.5, 0.5**1.5]])
FIVE_ONE /= FIVE_ONE.sum()


@pytest.mark.parametrize(
    "codec", ["pcm_s16le", "pcm_s32le", "pcm_f32le", "flac", "aac", "libopus", "ac3", "libmp3lame"]
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_codecs_and_channels(tmp_path, codec, channels):
    if codec == "libmp3lame" and channels == 6:
        return
    samples = tone(400, 1, 48000, channels)
    found = video_with(tmp_path, Track(samples, 48000, codec)).sound().read(0, 16000)[1600:-1600]
    mixed = FIVE_ONE @ samples if channels == 6 else samples
    expected = whole(mixed, 48000)[1600:-1600]
    assert np.corrcoef(found, expected)[0, 1] > 0.97
    assert found.std() == pytest.approx(expected.std(), rel=0.1)


@pytest.mark.parametrize("channel", range(6))
def test_speech_in_the_center_of_five_one_is_not_a_sixth(tmp_path, channel):
    samples = np.zeros((6, 16000))
    samples[channel] = tone(400, 1, 16000)[0]
    found = video_with(tmp_path, Track(samples, 16000, "pcm_f32le")).sound().read(0, 16000)
    np.testing.assert_allclose(found, FIVE_ONE[0, channel] * samples[channel], atol=1e-6)


def test_a_rate_that_is_not_read_is_told():
    def frames():
        frame = av.AudioFrame.from_ndarray(np.ones((1, 500), np.float32), "fltp", "mono")
        frame.sample_rate, frame.time_base, frame.pts = 500, Fraction(1), 0
        yield frame

    told = []
    sound = SoundTrack(frames(), Fraction(0), warn=lambda *words: told.append(" ".join(words)))
    assert not sound.read(0, 16000).any()
    assert len(told) == 1 and "500 Hz" in told[0] and "4000" in told[0]


def test_memory_does_not_grow(tmp_path):
    sound = video_with(tmp_path, Track(hiss(40, 16000), 16000)).sound()
    held = []
    for start in range(0, 600000, 8000):
        sound.read(start, 8000)
        held.append(sum(piece.size for _, piece in sound._sound._pieces))
    assert max(held) < 20000
    sound = video_with(tmp_path, Track(hiss(40, 16000), 16000)).sound()
    sound.read(600000, 8000)
    assert sum(piece.size for _, piece in sound._sound._pieces) < 20000


def test_frames_of_another_rate_are_brought_to_the_first(tmp_path):
    def frames():
        for start, rate in ((0, 16000), (1, 8000), (2, 48000)):
            piece = tone(200, 1, rate).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1), start
            yield frame

    found = SoundTrack(frames(), Fraction(0)).read(0, 48000)
    assert np.abs(found - tone(200, 3, 16000)[0]).max() < 0.04
