import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.audio.separation import SEPARATOR_REGISTRY, build_separator, nmf
from qdformer.errors import InputError
from qdformer.synthetic.sounds import synthesize
from tests.samples import small_config


def tone(hertz, seconds=2.0, start=0.0, stop=None):
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    heard = (time >= start) & (time < (seconds if stop is None else stop))
    return (0.3 * np.sin(2 * np.pi * hertz * time) * heard).astype(np.float32)


def similarity(sources, originals):
    """(S, S) correlations, each original in the place of the source that is most like it."""
    table = np.abs(np.corrcoef(np.concatenate([sources, originals])))
    table = table[: len(sources), len(sources) :]
    return table[:, table.argmax(1)]


def separator(method="nmf", count=2):
    return build_separator(
        small_config("INPUT.SEPARATION.METHOD", method, "INPUT.SEPARATION.NUM_SOURCES", count)
    )


@pytest.fixture
def registered():
    """Registers separators for the length of a test."""
    names = []

    def register(function):
        names.append(function.__name__)
        SEPARATOR_REGISTRY.register(function)

    yield register
    for name in names:
        SEPARATOR_REGISTRY._obj_map.pop(name)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (tone(440), 0.3 * tone(3000)),  # all the time, both
        (tone(300, start=0, stop=1.2), tone(2000, start=0.8)),
        (tone(1000, stop=1), tone(1300, start=1)),
    ],
)
def test_tones_apart_in_pitch_are_separated(first, second):
    similar = similarity(nmf(first + second, 2), np.stack([first, second]))
    assert np.diagonal(similar).min() > 0.9
    assert similar[0, 1] < 0.3 and similar[1, 0] < 0.3


def test_timbres_are_separated():
    """Sources without weights: each is far more like one of the originals than the mixture is."""
    first, second = synthesize("bird", "00-A"), synthesize("drum", "01-A")
    first, second = (part / part.std() for part in (first, second))
    similar = similarity(nmf(first + second, 2), np.stack([first, second]))
    assert np.diagonal(similar).min() > 0.9  # the mixture's is 0.7
    assert max(similar[0, 1], similar[1, 0]) < 0.3


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.integers(0, 2000), st.integers(1, 4), st.floats(-30, 30), st.integers(0, 5))
def test_sources_are_finite_and_add_up_to_the_mixture(samples, count, level, seed):
    rng = np.random.default_rng(seed)
    waveform = (10**level * rng.standard_normal(samples)).astype(np.float32)
    waveform[rng.random(samples) < 0.3] = 0
    sources = separator(count=count)(waveform)
    assert sources.shape == (count, samples) and sources.dtype == np.float32
    assert np.isfinite(sources).all()
    peak = np.abs(waveform).max(initial=0)
    np.testing.assert_allclose(sources.sum(0), waveform, atol=1e-4 * peak, rtol=0)


def test_the_loudest_comes_first_and_a_level_changes_nothing_else():
    waveform = tone(500) + 0.2 * tone(4000)
    sources = nmf(waveform, 3)
    energy = np.square(sources).sum(1)
    assert (np.diff(energy) <= 0).all()
    np.testing.assert_allclose(nmf(waveform * 64, 3), sources * 64, rtol=1e-3, atol=1e-4)


def test_a_sound_is_separated_alike_whatever_came_before_and_by_any_number_of_threads():
    mixture = tone(440, start=0.5) + tone(2500, stop=1.5)
    expected = nmf(mixture, 2)
    nmf(synthesize("guitar", "00-A"), 3)
    np.random.seed(5)
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            assert np.array_equal(nmf(mixture, 2), expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_processes_forked_after_a_separation_separate_too():
    mixture = tone(440, 1) + tone(2500, 1)
    expected = nmf(mixture, 2)
    # As a loader's worker does: a forked process cannot use the threads of its parent.
    with multiprocessing.get_context("fork").Pool(1, torch.set_num_threads, (1,)) as pool:
        assert np.array_equal(pool.apply_async(nmf, (mixture, 2)).get(timeout=120), expected)


def test_silence_and_a_single_source():
    assert np.array_equal(nmf(np.zeros(500, np.float32), 3), np.zeros((3, 500)))
    waveform = tone(440, 0.1)
    assert np.array_equal(nmf(waveform, 1), waveform[None])


def test_a_separator_of_the_users_own_is_found_by_name(registered):
    def halves(waveform, count):
        return np.stack([waveform / count] * count)

    registered(halves)
    assert np.array_equal(separator("halves", 4)(tone(50)), np.stack([tone(50) / 4] * 4))
    assert build_separator(small_config()) is None


@pytest.mark.parametrize(
    ("method", "count", "message"),
    [
        ("nmff", 2, "INPUT.SEPARATION.METHOD is 'nmff'; registered are nmf"),
        ("nmf", 0, "INPUT.SEPARATION.NUM_SOURCES is 0; it must be at least 1"),
    ],
)
def test_wrong_settings_are_named(method, count, message):
    with pytest.raises(InputError, match=message):
        separator(method, count)


def test_what_a_separator_returns_is_looked_at(registered):
    def too_short(waveform, count):
        return np.zeros((count, len(waveform) - 1))

    def not_finite(waveform, count):
        return np.full((count, len(waveform)), np.nan)

    for function in (too_short, not_finite):
        registered(function)
        with pytest.raises(InputError, match=f"{function.__name__} made an array of shape"):
            separator(function.__name__)(tone(50, 0.1))
