import numpy as np
import pytest
import soundfile
from PIL import Image

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.errors import InputError
from qdformer.synthetic.asset_readers import check_asset, loud_starts, read_cutout, read_sound
from qdformer.synthetic.assets import Asset


@pytest.fixture
def recording(tmp_path):
    def write(sound, name="sound.wav"):
        soundfile.write(tmp_path / name, sound, SAMPLE_RATE)
        return Asset("sounds", "a", name, tmp_path / name)

    return write


def burst(seconds, first, last):
    sound = np.zeros(round(seconds * SAMPLE_RATE))
    sound[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)] = 0.5
    return sound


def test_loud_seconds_hold_the_short_event_whole(recording):
    starts = loud_starts(recording(burst(5, 3.5, 3.8))) / SAMPLE_RATE
    assert len(starts) > 3
    assert (starts <= 3.5).all() and (starts + 1 >= 3.8).all()


def test_every_second_of_an_even_sound_will_do(recording):
    starts = loud_starts(recording(np.full(3 * SAMPLE_RATE, 0.1)))
    np.testing.assert_array_equal(starts, np.arange(21) * SAMPLE_RATE // 10)


def test_quieter_passages_are_left_out(recording):
    sound = np.concatenate([np.full(SAMPLE_RATE, 0.1), np.full(SAMPLE_RATE, 0.3)])
    # An energy of one half of the loudest is reached with about half a second of the loud one.
    assert 0.3 < loud_starts(recording(sound)).min() / SAMPLE_RATE < 0.7


def test_a_short_recording_is_continued_by_silence(recording):
    asset = recording(np.full(4000, 0.5))
    assert read_sound(asset).shape == (SAMPLE_RATE,)
    assert read_sound(asset)[4000:].max() == 0
    np.testing.assert_array_equal(loud_starts(asset), [0])


def test_a_silent_recording_is_refused(recording):
    with pytest.raises(InputError, match="sound.wav: this recording is silent"):
        loud_starts(recording(np.zeros(SAMPLE_RATE)))


def test_a_cutout_is_trimmed_and_premultiplied(tmp_path):
    picture = np.zeros((20, 30, 4), np.uint8)
    picture[5:9, 10:20] = (200, 100, 50, 255)
    picture[4, 10:20] = (200, 100, 50, 153)  # more than half opaque
    picture[9, 10:20] = (200, 100, 50, 51)  # less
    Image.fromarray(picture, "RGBA").save(tmp_path / "cutout.png")
    cutout = read_cutout(Asset("cutouts", "a", "cutout", tmp_path / "cutout.png"))
    assert cutout.shape == (5, 10, 4) and cutout.dtype == np.float32
    np.testing.assert_allclose(cutout[1:], np.broadcast_to([200, 100, 50, 255], (4, 10, 4)))
    np.testing.assert_allclose(cutout[0, 0], [120, 60, 30, 153], rtol=1e-6)


@pytest.mark.parametrize(
    "kind, name, message",
    [
        ("cutouts", "empty.png", "empty.png: cannot be decoded as an image .it is empty"),
        ("cutouts", "text.png", "text.png: cannot be decoded as an image"),
        ("cutouts", "rgb.png", "rgb.png: cannot be decoded as an image .it has no alpha channel"),
        ("cutouts", "clear.png", "clear.png: no pixel of this cutout is opaque"),
        ("sounds", "text.png", "text.png"),
        ("noise", "empty.png", "empty.png"),
        ("backgrounds", "text.png", "text.png: cannot be decoded as an image"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, kind, name, message):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "clear.png")
    with pytest.raises(InputError, match=message):
        check_asset(Asset(kind, "a", name, tmp_path / name))


@pytest.mark.parametrize("value", [1e19, 3e38])
def test_a_recording_far_beyond_full_scale_is_refused(tmp_path, value):
    soundfile.write(tmp_path / "a.wav", np.full(SAMPLE_RATE, value), SAMPLE_RATE, "FLOAT")
    with pytest.raises(InputError, match="a.wav: this recording is far beyond full scale"):
        loud_starts(Asset("sounds", "a", "a", tmp_path / "a.wav"))


@pytest.mark.parametrize("number, usable", [(1, False), (160, False), (200, True)])
def test_a_sound_must_outlast_the_fade(recording, number, usable):
    asset = recording(np.full(number, 0.5))
    if usable:
        assert loud_starts(asset).tolist() == [0]
    else:
        with pytest.raises(InputError, match="this recording is silent"):
            loud_starts(asset)


def test_starts_at_which_the_fade_leaves_nothing_are_left_out(recording):
    sound = np.zeros(2 * SAMPLE_RATE)
    sound[11200] = 0.9  # the first sample of second 0.7 to 1.7
    starts = loud_starts(recording(sound)).tolist()
    assert starts and 11200 not in starts


def test_a_cutout_of_one_pixel_is_usable(tmp_path):
    Image.new("RGBA", (1, 1), (8, 9, 10, 255)).save(tmp_path / "a.png")
    cutout = read_cutout(Asset("cutouts", "a", "a", tmp_path / "a.png"))
    assert cutout.tolist() == [[[8, 9, 10, 255]]]
