import logging
import math
import os
import pickle

import numpy as np
import pytest
import soundfile
import torch

from qdformer.data import audio
from qdformer.data.audio import (
    clip_log_mel,
    log_mel,
    log_mel_examples,
    read_log_mel,
    read_waveform,
    required_samples,
)
from qdformer.errors import InputError

SILENCE = math.log(0.01)


def tone(num_samples=80000):
    """Two tones whose log-mel values are published with the VGGish port of the field."""
    n = np.arange(num_samples)
    return 0.5 * np.sin(2 * np.pi * 440 * n / 16000) + 0.25 * np.sin(2 * np.pi * 1000 * n / 16000)


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch):
    monkeypatch.setattr(audio, "_warned", set())


def assert_statistics(examples, mean, maximum, std=None, minimum=None):
    values = examples.double()
    assert values.mean().item() == pytest.approx(mean, abs=1e-6)
    assert values.max().item() == pytest.approx(maximum, abs=1e-6)
    if std is not None:
        assert values.std(unbiased=False).item() == pytest.approx(std, abs=1e-6)
    if minimum is not None:
        assert values.min().item() == pytest.approx(minimum, abs=1e-6)


def test_log_mel_of_two_tones_has_the_published_values():
    examples = log_mel(tone())
    assert examples.shape == (5, 1, 96, 64) and examples.dtype == torch.float32
    assert_statistics(examples, -2.929229, 4.089175, std=2.513461, minimum=-4.604266)
    e = examples[:, 0]
    first = [-3.722788, -2.728431, -2.192447, -2.044010, -2.335917, -0.345511, 1.304343, 3.188003]
    assert e[0, 0, :8].tolist() == pytest.approx(first, abs=1e-6)
    last = [-4.603432, -4.603701, -4.603989, -4.604266]
    assert e[4, 95, 60:].tolist() == pytest.approx(last, abs=1e-6)
    assert e[0, 0].argmax() == 8 and e[0, 0, 8].item() == pytest.approx(4.089155, abs=1e-6)
    assert set(e[0, 0].topk(4).indices.tolist()) == {8, 9, 19, 20}


def test_magnitudes_of_two_tones_have_the_published_values(monkeypatch):
    # With the identity in place of the mel bands, log-mel is the logarithm of the magnitudes.
    monkeypatch.setattr(audio, "_mel_matrix", lambda: torch.eye(257, dtype=torch.float64))
    magnitudes = log_mel(tone()).double().exp() - 0.01
    assert magnitudes.shape == (5, 1, 96, 257)
    assert magnitudes[0, 0, 0, 14].item() == pytest.approx(49.873274, abs=2e-5)
    assert magnitudes[0, 0, 0, 32].item() == pytest.approx(25.0, abs=2e-5)


def test_log_mel_of_silence_is_the_logarithm_of_the_offset():
    assert (log_mel(np.zeros(80000)) == torch.tensor(SILENCE)).all()
    assert SILENCE == pytest.approx(-4.605170, abs=1e-6)


def test_log_mel_of_an_impulse_has_the_published_values():
    impulse = np.zeros(80000)
    impulse[8000] = 1
    examples = log_mel(impulse)
    assert_statistics(examples, -4.583879, 2.091875)
    assert np.unravel_index(int(examples.argmax()), examples.shape) == (0, 0, 49, 63)


def test_mel_matrix_has_the_published_values():
    matrix = audio._mel_matrix()
    assert matrix.shape == (257, 64)
    assert matrix.sum().item() == pytest.approx(230.913599, abs=1e-6)
    assert matrix.count_nonzero() == 461
    assert matrix.max().item() == pytest.approx(0.996191, abs=1e-6)
    assert (matrix.sum(dim=0) > 0).all() and (matrix[0] == 0).all()
    assert matrix[:, 0].nonzero().flatten().tolist() == [5]
    assert matrix[5, 0].item() == pytest.approx(0.947690, abs=1e-6)


def test_mel_matrix_equals_triangles_drawn_by_hand():
    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    assert mel(1000) == pytest.approx(999.990701, abs=1e-6)
    step = (mel(7500) - mel(125)) / 65
    for band in (0, 17, 63):
        peak = mel(125) + step * (band + 1)
        for k in range(1, 257):
            expected = max(0, 1 - abs(mel(k * 31.25) - peak) / step)
            assert audio._mel_matrix()[k, band].item() == pytest.approx(expected, abs=1e-9)


def test_log_mel_equals_a_loop_over_frames():
    waveform = np.random.default_rng(1).normal(0, 0.1, 31000)
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    assert window[1] == pytest.approx(0.000062, abs=1e-6) and window[200] == 1
    matrix = audio._mel_matrix().numpy()
    examples = log_mel(waveform)[:, 0].flatten(0, 1)
    assert len(examples) == 192
    for frame in (0, 95, 96, 191):
        magnitude = np.abs(np.fft.rfft(waveform[160 * frame :][:400] * window, 512))
        expected = np.log(magnitude @ matrix + 0.01)
        np.testing.assert_allclose(examples[frame].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("num_examples", "samples"), [(1, 15600), (4, 61680), (5, 77040), (9, 138480), (10, 153840)]
)
def test_smallest_number_of_samples_for_each_number_of_examples(num_examples, samples):
    assert required_samples(num_examples) == samples
    assert len(log_mel(np.zeros(samples))) == num_examples
    assert len(log_mel(np.zeros(samples - 1))) == num_examples - 1


def test_no_sound_gives_no_examples():
    assert log_mel(np.zeros(0)).shape == (0, 1, 96, 64)
    assert log_mel_examples(np.zeros(0), 2).shape == (2, 1, 96, 64)


def test_examples_of_a_clip_are_those_of_its_sound():
    whole = log_mel(tone())
    assert torch.equal(log_mel_examples(tone(), 5), whole)
    assert torch.equal(log_mel_examples(tone(), 3), whole[:3])
    assert torch.equal(log_mel_examples(torch.from_numpy(tone()), 3), whole[:3])


def test_shorter_sound_is_continued_by_silence():
    short = tone(20000)
    examples = log_mel_examples(short, 3)
    assert torch.equal(examples, log_mel(np.pad(short, (0, required_samples(3) - 20000))))
    assert (examples[2] == torch.tensor(SILENCE)).all()


def test_hop_moves_the_examples():
    waveform = tone()
    examples = log_mel_examples(waveform, 4, hop=1.0)
    for t in range(4):
        assert torch.equal(examples[t], log_mel(waveform[16000 * t :])[0])


def test_16_bit_wav_is_near_the_published_values(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.round(tone() * 32767).astype(np.int16), 16000)
    waveform = read_waveform(path)
    assert waveform.dtype == np.float32 and waveform.shape == (80000,)
    assert np.array_equal(waveform * 32768, np.round(tone() * 32767))
    examples = log_mel(waveform)
    assert examples.double().mean().item() == pytest.approx(-2.911499, abs=1e-5)
    # Quantisation noise shows where the bands are nearly empty.
    assert 0.01 < (examples - log_mel(tone())).abs().max() < 0.1


def test_stereo_is_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), np.zeros(80000)], 1), 16000, subtype="DOUBLE")
    waveform = read_waveform(path)
    np.testing.assert_allclose(waveform, 0.5 * tone(), atol=1e-7)
    assert_statistics(log_mel(0.5 * tone()), -3.196678, 3.396195)
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
    assert torch.equal(clip_log_mel(tmp_path / "a.flac", 5), log_mel(read_waveform(tmp_path / "a.flac")))
    tensor = released(5)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(tensor))
    assert torch.equal(clip_log_mel(tmp_path / "a.pkl", 5), tensor)
    assert not caplog.records


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
