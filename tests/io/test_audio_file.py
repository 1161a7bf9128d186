import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from qdformer.errors import InputError
from qdformer.io import audio_file as sound_file
from qdformer.io.audio_file import read_sound_file

FORMATS = [
    (container, subtype)
    for container in ("WAV", "RF64", "FLAC", "OGG")
    for subtype in soundfile.available_subtypes(container)
    if subtype != "MPEG_LAYER_III"  # is read, but not written
]


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_blocks_make_up_the_sound(tmp_path, monkeypatch, container, subtype):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 20000)
    soundfile.write(tmp_path / "a", samples, 8000, subtype, format=container)
    whole, _ = soundfile.read(tmp_path / "a", dtype="float32")
    monkeypatch.setattr(sound_file, "_BLOCK_VALUES", 777)
    sound = read_sound_file(tmp_path / "a")
    assert np.array_equal(sound.samples, whole) and (sound.rate, sound.channels) == (8000, 1)
    beginning = read_sound_file(tmp_path / "a", seconds=0.5).samples
    assert np.array_equal(beginning, whole[:4000])


def test_only_what_is_asked_for_is_decoded(tmp_path):
    samples = np.zeros(20000)
    samples[9000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 8000, "FLOAT")
    assert not read_sound_file(tmp_path / "a.wav", seconds=1).samples.any()
    assert np.isnan(read_sound_file(tmp_path / "a.wav").samples).any()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    st.integers(1, 5).flatmap(
        lambda channels: st.lists(
            st.lists(st.floats(width=32), min_size=channels, max_size=channels), min_size=1
        )
    )
)
def test_channels_are_averaged_without_overflow(tmp_path_factory, samples):
    path = tmp_path_factory.mktemp("sounds") / "a.wav"
    soundfile.write(path, np.array(samples, np.float32), 16000, "FLOAT")
    with np.errstate(invalid="ignore"):
        expected = np.array(samples, np.float64).mean(1)
    found = read_sound_file(path).samples
    assert np.array_equal(found, expected.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("rate", [16000, 8000])
def test_the_longest_sound_counts_at_16_khz_too(tmp_path, monkeypatch, rate):
    monkeypatch.setattr(sound_file, "MAX_SAMPLES", 1000)
    longest = 1000 * rate // 16000
    soundfile.write(tmp_path / "a.wav", np.zeros(longest), rate)
    assert len(read_sound_file(tmp_path / "a.wav").samples) == longest
    soundfile.write(tmp_path / "a.wav", np.zeros(longest + 1), rate)
    with pytest.raises(InputError, match=f"a.wav: .*more than {longest:,} samples"):
        read_sound_file(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [1, 3999, 1_000_001, 2**31 - 1])
def test_absurd_rates_are_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), rate)
    with pytest.raises(InputError, match=f"a.wav: .*sampled at {rate:,} Hz"):
        read_sound_file(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["raw", "vox", "gsm", "mp3", "au"])
def test_samples_without_a_header_are_not_guessed_at(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(999))
    with pytest.raises(InputError, match="neither wav nor flac nor ogg"):
        read_sound_file(path)
    soundfile.write(path, np.zeros(10), 16000, "PCM_16", format="FLAC")  # the name does not matter
    assert len(read_sound_file(path).samples) == 10
