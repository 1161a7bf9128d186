import math

import numpy as np
import pytest
import torch

from qdformer.audio import log_mel as audio
from qdformer.audio.log_mel import log_mel, log_mel_examples, mono_samples, required_samples
from qdformer.errors import InputError

SILENCE = math.log(0.01)


def tone(num_samples=80000):
    """Two tones whose log-mel values are published with the VGGish port of the field."""
    n = np.arange(num_samples)
    return 0.5 * np.sin(2 * np.pi * 440 * n / 16000) + 0.25 * np.sin(2 * np.pi * 1000 * n / 16000)


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


def test_log_mel_of_half_the_level_has_the_published_values():
    # What averaging the stereo sound (x, 0) comes to.
    assert_statistics(log_mel(0.5 * tone()), -3.196678, 3.396195)


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


def test_chosen_examples_are_those_of_the_whole():
    waveform = np.random.default_rng(0).normal(0, 0.1, 10 * 16000)
    for hop in (0.96, 1.0):
        whole = log_mel_examples(waveform, 10, hop)
        for chosen in (slice(None), slice(3, 8), slice(9, 14)):
            assert torch.equal(log_mel_examples(waveform, 10, hop, chosen), whole[chosen])


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32", "float64"])
def test_samples_of_every_type_are_the_same_sound(kind):
    wave = 0.5 * np.sin(np.arange(1600) / 20)
    scale, middle = {"uint8": (128, 128), "int16": (2**15, 0), "int32": (2**31, 0)}.get(
        kind, (1, 0)
    )
    given = wave * scale + middle
    given = (given.round() if scale > 1 else given).astype(kind)
    found = mono_samples(given)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wave, atol=1 / scale if scale > 1 else 1e-6)


def test_samples_at_another_rate_are_resampled():
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    found = mono_samples(tone, 48_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(found) == 16_000
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=1e-2)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 16)), np.array([0.0, 20_000.0]), np.array([np.nan]), np.array([np.inf]),
     np.zeros(4, complex), np.array(["loud"])],
)  # fmt: skip
def test_what_is_no_mono_sound_is_refused(wrong):
    with pytest.raises(InputError, match="the sound"):
        mono_samples(wrong)


@pytest.mark.parametrize("rate", [0, -1, 10**9])
def test_rates_that_are_not_read(rate):
    with pytest.raises(InputError, match=f"{rate} Hz"):
        mono_samples(np.zeros(16), rate)
