import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.errors import InputError
from qdformer.synthetic.noise import SYNTHESIZED, draw_noise, mix_at_snr


def sound(seconds=3.0, seed=0, level=0.1):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def measured_snr(waveform, mixed):
    noise = mixed.astype(np.float64) - waveform
    return 10 * np.log10(np.sum(waveform.astype(np.float64) ** 2) / np.sum(noise**2))


def noise_of(video_id, snr=0.0, source="mixture", seed=0):
    (noise,) = draw_noise([video_id], snr, source, seed)
    return noise


@pytest.fixture
def recordings(tmp_path):
    """Three recordings of different lengths; ``b`` is of 1 s and quiet in its second half."""
    folder = tmp_path / "noise"
    (folder / "street").mkdir(parents=True)
    half = np.concatenate([sound(0.5, 1, 0.05), np.zeros(SAMPLE_RATE // 2, np.float32)])
    soundfile.write(folder / "a.wav", sound(8, 2, 0.05), SAMPLE_RATE)
    soundfile.write(folder / "street" / "b.wav", half, SAMPLE_RATE)
    soundfile.write(folder / "street" / "c.FLAC", sound(2, 3, 0.05), SAMPLE_RATE, format="FLAC")
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.mark.parametrize("source", [*SYNTHESIZED, "recordings"])
@pytest.mark.parametrize("snr", [-20.0, 0.0, 7.5, 40.0])
def test_the_ratio_is_what_was_asked_for(source, snr, recordings):
    source = recordings if source == "recordings" else source
    for video_id in ("a", "b", "c"):
        waveform = sound(level=0.02)
        mixed = noise_of(video_id, snr, source).add_to(waveform)
        assert mixed.shape == waveform.shape
        assert measured_snr(waveform, mixed) == pytest.approx(snr, abs=0.1)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.floats(-100, 100), st.floats(1e-30, 1e30), st.floats(1e-30, 1e30), st.integers(1, 50))
def test_any_levels_and_lengths_mix(snr, level, noise_level, samples):
    waveform, noise = sound(samples / SAMPLE_RATE, 1), sound(samples / SAMPLE_RATE, 2)
    waveform, noise = waveform.astype(float) * level, noise.astype(float) * noise_level
    mixed = mix_at_snr(waveform, noise, snr)
    assert np.isfinite(mixed).all()
    if abs(snr) < 60:  # beyond, the difference has too few digits left
        assert measured_snr(waveform, mixed) == pytest.approx(snr, abs=0.1)


def test_a_clip_has_its_noise_whatever_else_is_asked_for(recordings):
    names = [f"clip{n}" for n in range(12)]
    for source in ("mixture", recordings):
        forth = dict(zip(names, draw_noise(names, 5, source)))
        back = dict(zip(names[::-1], draw_noise(names[::-1], 5, source)))
        alone = {name: noise_of(name, 5, source) for name in names[::3]}
        assert forth == back and all(forth[name] == noise for name, noise in alone.items())
        waveform = sound()
        first = forth["clip3"].add_to(waveform)
        forth["clip4"].add_to(sound(1))
        np.random.seed(1)
        assert np.array_equal(back["clip3"].add_to(waveform), first)


def test_another_clip_or_seed_hears_other_noise_and_another_ratio_the_same(recordings):
    waveform = sound()
    for source in ("mixture", recordings):
        parts = [
            noise_of(*which).add_to(waveform) - waveform
            for which in (("a", 0, source), ("b", 0, source), ("a", 0, source, 1))
        ]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert abs(np.corrcoef(parts[one], parts[other])[0, 1]) < 0.9
        louder = noise_of("a", -6, source).add_to(waveform) - waveform
        np.testing.assert_allclose(louder, parts[0] * 10 ** (6 / 20), rtol=1e-6, atol=1e-9)


def test_recordings_are_looped_and_cut_at_drawn_places(recordings):
    waveform, places = sound(5), {"a": set(), "b": set(), "c": set()}
    for video_id in map(str, range(30)):
        noise = noise_of(video_id, 0, recordings)
        added = noise.add_to(waveform) - waveform
        original, _ = soundfile.read(noise.source.path)
        # Where it fits best in the endless recording, by circular correlation.
        once = np.pad(added, (0, max(0, original.size - added.size)))[: original.size]
        fit = np.fft.irfft(np.fft.rfft(original) * np.fft.rfft(once).conj(), original.size)
        start = int(fit.argmax())
        looped = np.resize(np.roll(original, -start), added.size)
        assert np.corrcoef(looped, added)[0, 1] > 0.999
        places[noise.source.name].add(start)
    assert all(len(starts) > 3 for starts in places.values())


def test_a_loud_part_of_a_recording_is_heard(tmp_path):
    """One second of noise in a minute of silence; every clip has all of it."""
    recording = np.zeros(60 * SAMPLE_RATE, np.float32)
    recording[20 * SAMPLE_RATE : 21 * SAMPLE_RATE] = sound(1)
    soundfile.write(tmp_path / "once.wav", recording, SAMPLE_RATE)
    for video_id in map(str, range(10)):
        waveform = sound(3, 5)
        mixed = noise_of(video_id, 3, tmp_path).add_to(waveform)
        assert measured_snr(waveform, mixed) == pytest.approx(3, abs=0.1)
        assert (mixed != waveform).sum() > 0.8 * SAMPLE_RATE


def test_silence_stays_silent_and_silent_noise_adds_nothing():
    silence, waveform = np.zeros(1000, np.float32), sound(1000 / SAMPLE_RATE)
    assert not noise_of("a").add_to(silence).any()
    assert not mix_at_snr(silence, silence, 0).any()
    assert np.array_equal(mix_at_snr(waveform, silence, 0), waveform)


def test_a_silent_recording_is_refused(tmp_path):
    soundfile.write(tmp_path / "still.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(InputError, match=r"still\.wav.*silent"):
        noise_of("a", 0, tmp_path).add_to(sound())


@pytest.mark.parametrize("name", SYNTHESIZED)
@pytest.mark.parametrize("samples", [SAMPLE_RATE, SAMPLE_RATE + 1, 5 * SAMPLE_RATE])
def test_synthesized_noise_is_of_unit_power(name, samples):
    noise = SYNTHESIZED[name](np.random.default_rng(0), samples)
    assert noise.shape == (samples,) and np.isfinite(noise).all()
    assert np.mean(noise**2) == pytest.approx(1, abs=0.05)


def test_octaves_of_the_noises():
    def octaves(name):
        noise = SYNTHESIZED[name](np.random.default_rng(0), 20 * SAMPLE_RATE)
        power, hertz = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(noise.size, 1 / SAMPLE_RATE)
        edges = 125.0 * 2.0 ** np.arange(7)
        parts = [power[(hertz >= low) & (hertz < 2 * low)].sum() for low in edges[:-1]]
        return 10 * np.log10(np.array(parts))

    assert np.diff(octaves("white")) == pytest.approx(3.01, abs=0.3)
    assert np.diff(octaves("pink")) == pytest.approx(0, abs=0.5)
    assert 1 <= octaves("babble").argmax() <= 2  # 250 to 1000 Hz, where speech is strongest


@pytest.mark.parametrize(
    ("snr", "source", "seed", "message"),
    [
        (float("nan"), "white", 0, "signal-to-noise ratio is nan; give decibels from -100 to 100"),
        (101, "white", 0, "signal-to-noise ratio is 101"),
        (0, "white", -1, "the seed of the noise is -1; it must be at least 0"),
        (0, "brown", 0, "brown: neither a folder.*mixture, white, pink, babble"),
        (0, "empty", 0, "empty: has no noise recordings"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, monkeypatch, snr, source, seed, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        draw_noise(["a"], snr, source, seed)
