import cv2
import numpy as np
import pytest

from qdformer.visualization.motion import follow, motion


def texture(height, width, seed=0):
    """Blots a twentieth of the shorter side wide, three times that around the picture."""
    blot = min(height, width) / 20
    pixels = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    pixels = cv2.GaussianBlur(pixels, (0, 0), max(blot, 0.5))
    return cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def window(picture, x, y, size):
    return picture[y : y + size[0], x : x + size[1]]


@pytest.mark.parametrize("size", [(180, 320), (361, 203), (720, 530), (97, 61), (33, 64)])
@pytest.mark.parametrize("share", [(0, 0), (0.05, -0.02), (-0.1, 0.08)])
def test_shift_of_a_texture(size, share):
    side = min(size)
    x, y = (round(part * side) for part in share)
    margin = side // 4
    large = texture(size[0] + 2 * margin, size[1] + 2 * margin)
    before, after = window(large, margin, margin, size), window(large, margin + x, margin + y, size)
    found = motion(before, after)
    assert found.dtype == np.float32 and found.shape == (*size, 2)
    # A quarter of the pixels that are looked at; what is at the edge is guessed.
    within = 0.25 * max(1, side / 180)
    away = np.abs(found - (x, y)).max(axis=2)[margin:-margin, margin:-margin]
    assert np.quantile(away, 0.9) <= within


def test_only_what_moves_moves():
    before = texture(180, 320)
    after = before.copy()
    ball = texture(60, 60, seed=1)
    before[60:120, 60:120] = after[60:120, 72:132] = ball
    found = motion(before, after)
    np.testing.assert_allclose(np.median(found[75:105, 87:117], axis=(0, 1)), (-12, 0), atol=0.5)
    assert np.abs(found[:, 200:]).max() < 0.5


def test_following_the_motion_gives_the_later_picture():
    large = texture(260, 400)
    before, after = window(large, 40, 40, (180, 320)), window(large, 49, 35, (180, 320))
    carried = follow(before, motion(before, after))[20:-20, 20:-20].astype(int)
    later, earlier = after[20:-20, 20:-20], before[20:-20, 20:-20]
    assert np.abs(carried - later).mean() < 0.1 * np.abs(earlier.astype(int) - later).mean()


@pytest.mark.parametrize("brightness", [0.7, 1.2])
def test_brightness_is_no_motion(brightness):
    before = texture(180, 320) // 2 + 30
    assert np.quantile(np.abs(motion(before, np.uint8(before * brightness))), 0.9) < 1


@pytest.mark.parametrize("size", [(240, 320), (720, 405)])
def test_equal_black_and_unrelated_pictures_do_not_move(size):
    picture, other = texture(*size), texture(*size, seed=1)
    black = np.zeros_like(picture)
    pairs = [(picture, picture), (picture, black), (black, picture), (black, black)]
    for before, after in [*pairs, (picture, other), (other, black + 255)]:
        assert not motion(before, after).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 2), (7, 9), (15, 40), (16, 16), (4000, 17)])
def test_tiny_and_narrow_pictures(size):
    before = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = motion(before, before[::-1, ::-1])
    assert found.shape == (*size, 2) and found.dtype == np.float32
    assert np.isfinite(found).all()


def test_pictures_are_not_changed():
    before, after = texture(180, 200), texture(180, 200, seed=1)
    copies = before.copy(), after.copy()
    motion(before, after)
    np.testing.assert_array_equal((before, after), copies)


def test_follow_takes_each_pixel_from_where_it_was():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1).repeat(4, axis=2)
    offsets = np.zeros((3, 4, 2), np.float32)
    offsets[0, 0], offsets[1, 1], offsets[2, 3] = (2, 1), (0.5, 0), (1, 0)
    expected = np.arange(12).reshape(3, 4)
    expected[0, 0], expected[2, 3] = 6, 0
    followed = follow(image, offsets)
    assert followed.shape == image.shape
    assert followed[1, 1, 0] in (5, 6)
    expected[1, 1] = followed[1, 1, 0]
    np.testing.assert_array_equal(followed, expected[..., None].repeat(4, axis=2))
    assert follow(image, offsets, cv2.BORDER_REPLICATE)[2, 3, 0] == 11
