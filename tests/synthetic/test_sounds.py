import numpy as np
import pytest

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.synthetic.sounds import (
    DURATION,
    NOISE_CLASSES,
    NOISE_NAMES,
    SOUND_CLASSES,
    SOUND_NAMES,
    synthesize,
)


@pytest.mark.parametrize("class_name", SOUND_CLASSES + NOISE_CLASSES)
def test_a_recording_is_whole_and_every_second_of_it_is_heard(class_name):
    name = SOUND_NAMES[3] if class_name in SOUND_CLASSES else NOISE_NAMES[1]
    sound = synthesize(class_name, name)
    assert sound.dtype == np.float32 and sound.shape == (DURATION * SAMPLE_RATE,)
    assert np.abs(sound).max() == pytest.approx(0.9)
    level = np.sqrt(np.square(sound.reshape(-1, SAMPLE_RATE)).mean(1))
    assert level.min() > 0.3 * level.max() > 0
    np.testing.assert_array_equal(sound, synthesize(class_name, name))


@pytest.mark.parametrize("class_name", SOUND_CLASSES)
def test_sources_and_takes_differ(class_name):
    names = ["00-A", "00-B", "01-A"]
    assert set(names) <= set(SOUND_NAMES)
    sounds = [synthesize(class_name, name) for name in names]
    assert all(np.abs(sounds[i] - sounds[j]).max() > 0.1 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_single_seconds_tell_the_class_also_of_new_sources():
    edges = np.unique(np.geomspace(4, 200, 41).astype(int))  # of the bands, in bins of 40 Hz

    def features(source):
        # Mean and spread over time of the level in each band, for each class and second.
        sounds = [synthesize(name, f"{source:02d}-A") for name in SOUND_CLASSES]
        windows = np.reshape(sounds, (len(sounds), 5, 40, 400)) * np.hanning(400)
        bins = np.abs(np.fft.rfft(windows, axis=-1))
        level = np.log(np.add.reduceat(bins, edges[:-1], axis=-1) + 0.1)
        return np.concatenate([level.mean(2), 2 * level.std(2)], axis=-1)

    known = np.concatenate([features(source) for source in range(10)], axis=1)
    new = np.concatenate([features(source) for source in range(10, 14)], axis=1)
    distance = np.linalg.norm(new[:, :, None, None] - known, axis=-1)
    nearest = distance.min(-1).argmin(-1)
    assert (nearest == np.arange(len(SOUND_CLASSES))[:, None]).mean() > 0.9
