import logging
import math
import os
import pickle

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchaudio.functional import resample

from qdformer.audio import log_mel as audio
from qdformer.audio.log_mel import clip_log_mel, log_mel, read_log_mel, read_waveform
from qdformer.errors import InputError

SILENCE = math.log(0.01)


def tone(num_samples=80000):
    """Two tones whose log-mel values are published with the VGGish port of the field."""
    n = np.arange(num_samples)
    return 0.5 * np.sin(2 * np.pi * 440 * n / 16000) + 0.25 * np.sin(2 * np.pi * 1000 * n / 16000)


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch):
    monkeypatch.setattr(audio, "_warned", set())


def test_16_bit_wav_is_near_the_published_values(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.round(tone() * 32767).astype(np.int16), 16000)
    waveform = read_waveform(path)
    assert waveform.dtype == np.float32 and waveform.shape == (80000,)
    assert np.array_equal(waveform * 32768, np.round(tone() * 32767))
    examples = log_mel(waveform)
    assert examples.double().mean().item() == pytest.approx(-2.911499, abs=1e-5)
    # Quantization noise shows where the bands are nearly empty.
    assert 0.01 < (examples - log_mel(tone())).abs().max() < 0.1


def test_stereo_is_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), np.zeros(80000)], 1), 16000, subtype="DOUBLE")
    waveform = read_waveform(path)
    np.testing.assert_allclose(waveform, 0.5 * tone(), atol=1e-7)
    # Single precision of the samples shows in bands without energy.
    assert log_mel(waveform).mean().item() == pytest.approx(-3.196678, abs=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 44101])
def test_resampled_tone_keeps_length_pitch_and_level(tmp_path, rate):
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate), rate)
    waveform = read_waveform(path)
    assert abs(len(waveform) - 32000) <= 1
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    middle = slice(8000, 24000)
    np.testing.assert_allclose(waveform[middle], expected[middle], atol=0.01)


def test_resampling_is_torchaudio_s_however_often(tmp_path):
    random = np.random.default_rng(0)
    for rate, old, new in [(44100, 441, 160), (8000, 1, 2), (48000, 3, 1)] * 2:
        path = tmp_path / "noise.wav"
        samples = random.uniform(-0.5, 0.5, rate).astype(np.float32)
        soundfile.write(path, samples, rate, subtype="FLOAT")
        expected = resample(torch.from_numpy(samples), old, new).numpy()
        assert np.array_equal(read_waveform(path), expected)


@pytest.mark.parametrize(
    ("samples", "what"),
    [(np.zeros(0), "no sound"), ([0.0, np.nan], "NaN"), ([np.inf, 0.0], "infinite")],
)
def test_sound_without_usable_samples_is_refused(tmp_path, samples, what):
    path = tmp_path / "bad.wav"
    soundfile.write(path, np.asarray(samples), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=f"bad.wav.*{what}"):
        read_waveform(path)


def test_missing_and_undecodable_sound_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.wav: no such sound file"):
        read_waveform(tmp_path / "nowhere.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but not really")
    with pytest.raises(InputError, match="broken.wav: cannot be decoded"):
        read_waveform(tmp_path / "broken.wav")


def released(num_examples):
    """As AVSBench made its files: a float32 tensor that hangs on a float64 leaf."""
    leaf = torch.randn(num_examples, 96, 64, dtype=torch.float64, requires_grad=True)
    return leaf[:, None].float()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_released_log_mel_is_read(tmp_path, protocol):
    path, tensor = tmp_path / "clip.pkl", released(5)
    path.write_bytes(pickle.dumps(tensor, protocol))
    examples = read_log_mel(path)
    assert torch.equal(examples, tensor) and not examples.requires_grad


class Malicious:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_log_mel_file_cannot_run_code(tmp_path):
    victim = tmp_path / "made by the pickle"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Malicious(victim)))
    with pytest.raises(InputError, match=r"evil.pkl: .*mkdir"):
        read_log_mel(path)
    assert not victim.exists()


def test_code_inside_the_storage_of_a_log_mel_file_cannot_run(tmp_path):
    victim = tmp_path / "made by the pickle"

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (pickle.dumps(Malicious(victim), 2),)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Storage()))
    with pytest.raises(InputError, match="evil.pkl"):
        read_log_mel(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(5, 96, 64),
        torch.zeros(0, 1, 96, 64),
        torch.full((1, 1, 96, 64), math.nan),
        torch.tensor(1.0),
        [1, 2],
    ],
)
def test_other_content_than_log_mel_is_refused(tmp_path, content):
    path = tmp_path / "odd.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="odd.pkl: log-mel"):
        read_log_mel(path)


def test_missing_and_truncated_log_mel_are_named(tmp_path):
    with pytest.raises(InputError, match="none.pkl: no such"):
        read_log_mel(tmp_path / "none.pkl")
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(released(2))[:100])
    with pytest.raises(InputError, match="cut.pkl: not a pickled"):
        read_log_mel(tmp_path / "cut.pkl")


def test_clip_takes_sound_files_and_released_log_mel(tmp_path, caplog):
    soundfile.write(tmp_path / "a.flac", 0.1 * tone(), 16000)
    assert torch.equal(
        clip_log_mel(tmp_path / "a.flac", 5), log_mel(read_waveform(tmp_path / "a.flac"))
    )
    tensor = released(5)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(tensor))
    assert torch.equal(clip_log_mel(tmp_path / "a.pkl", 5), tensor)
    assert not caplog.records


def test_chosen_frames_of_a_clip(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(released(4)))
    for path in (tmp_path / "a.wav", tmp_path / "a.pkl"):
        chosen = clip_log_mel(path, 5, chosen=slice(2, 5))
        assert torch.equal(chosen, clip_log_mel(path, 5)[2:5])


def test_released_log_mel_is_brought_to_the_number_of_frames(tmp_path):
    path, tensor = tmp_path / "a.pkl", released(4)
    path.write_bytes(pickle.dumps(tensor))
    assert torch.equal(clip_log_mel(path, 3), tensor[:3])
    longer = clip_log_mel(path, 6)
    assert torch.equal(longer[:4], tensor) and (longer[4:] == torch.tensor(SILENCE)).all()


def test_each_reason_is_logged_once_with_the_first_file(tmp_path, caplog):
    def write(name, seconds, rate=16000, channels=1):
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (round(seconds * rate), channels))
        soundfile.write(tmp_path / name, noise, rate)
        return clip_log_mel(tmp_path / name, 5)

    with caplog.at_level(logging.WARNING):
        for name, seconds, rate, channels in [
            ("good.wav", 5, 16000, 1),
            ("short.wav", 4.8, 16000, 1),
            ("long.wav", 10, 16000, 1),
            ("stereo.wav", 5, 16000, 2),
            ("fast.wav", 5, 44100, 1),
            ("all.wav", 3, 44100, 2),
        ]:
            assert write(name, seconds, rate, channels).shape == (5, 1, 96, 64)
    messages = [record.getMessage() for record in caplog.records]
    expected = [
        ("short.wav", "too short"),
        ("long.wav", "longer"),
        ("stereo.wav", "channels"),
        ("fast.wav", "resampled"),
    ]
    assert len(messages) == len(expected)
    for message, (name, reason) in zip(messages, expected):
        assert name in message and reason in message


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100, 44101, 192_000])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_clip_takes_no_more_of_a_sound_than_it_needs(tmp_path, caplog, rate, num_frames):
    for seconds in (0.01, 0.96 * num_frames, 0.96 * num_frames + 1, 9):
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate))
        soundfile.write(tmp_path / "a.wav", noise, rate)
        whole = audio.log_mel_examples(read_waveform(tmp_path / "a.wav"), num_frames)
        part = clip_log_mel(tmp_path / "a.wav", num_frames)
        torch.testing.assert_close(part, whole, atol=1e-4, rtol=0)
    assert "too short" in caplog.text and "longer" in caplog.text


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    samples=hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 3))),
    rate=st.sampled_from([4000, 16000, 44100, 1_000_000]),
)
def test_whatever_the_samples_log_mel_is_finite_or_they_are_refused(
    tmp_path_factory, samples, rate
):
    path = tmp_path_factory.mktemp("sounds") / "a.wav"
    soundfile.write(path, np.repeat(samples, 10, 0), rate, "FLOAT")
    try:
        waveform = read_waveform(path)
    except InputError as error:
        assert str(path) in str(error)
        assert not (np.abs(samples) < 1e38).all()
    else:
        assert np.isfinite(waveform).all() and np.isfinite(samples).all()
        assert clip_log_mel(path, 2).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64])
def test_log_mel_of_other_numbers_is_refused(tmp_path, dtype):
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(torch.zeros(2, 1, 96, 64, dtype=dtype)))
    with pytest.raises(InputError, match=f"odd.pkl: log-mel must .* floating.* {dtype}"):
        read_log_mel(tmp_path / "odd.pkl")


@pytest.mark.parametrize("value", [-101, 101, 1e30])
def test_log_mel_that_no_sound_has_is_refused(tmp_path, value):
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(torch.full((2, 1, 96, 64), float(value))))
    with pytest.raises(InputError, match="odd.pkl: log-mel values must lie within 100"):
        read_log_mel(tmp_path / "odd.pkl")


def test_log_mel_that_claims_terabytes_is_refused(tmp_path):
    claimed = torch.zeros(1).expand(10**9, 1, 96, 64)
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(claimed))
    with pytest.raises(InputError, match="odd.pkl"):
        read_log_mel(tmp_path / "odd.pkl")
