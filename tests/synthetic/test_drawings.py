import colorsys

import numpy as np
import pytest

from qdformer.synthetic.drawings import (
    BACKGROUND_NAMES,
    CUTOUT_NAMES,
    CUTOUT_SIZE,
    DRAWN_CLASSES,
    draw_background,
    draw_cutout,
)
from qdformer.synthetic.sounds import SOUND_CLASSES


def test_what_is_drawn_is_what_is_synthesized():
    assert DRAWN_CLASSES == SOUND_CLASSES


@pytest.mark.parametrize("class_name", DRAWN_CLASSES)
def test_every_variant_is_a_whole_object_with_soft_edges(class_name):
    for name in CUTOUT_NAMES:
        cutout = draw_cutout(class_name, name)
        assert cutout.shape == (CUTOUT_SIZE, CUTOUT_SIZE, 4) and cutout.dtype == np.uint8
        alpha = cutout[..., 3]
        assert 0.15 < (alpha > 127).mean() < 0.8
        assert 0 < ((alpha > 0) & (alpha < 255)).mean() < 0.1
        border = [alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]]
        assert not np.concatenate(border).any(), f"{class_name} {name} is cut off"


@pytest.mark.parametrize("class_name", DRAWN_CLASSES)
def test_variants_differ_and_can_be_drawn_again(class_name):
    first, second = (draw_cutout(class_name, name) for name in CUTOUT_NAMES[:2])
    np.testing.assert_array_equal(first, draw_cutout(class_name, CUTOUT_NAMES[0]))
    assert np.abs(first.astype(int) - second).mean() > 1


def test_backgrounds_are_muted_and_differ():
    pictures = [draw_background(name) for name in BACKGROUND_NAMES[:6]]
    for picture in pictures:
        assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
        assert colorsys.rgb_to_hsv(*picture.mean((0, 1)) / 255)[1] < 0.4
        assert picture.std((0, 1)).max() < 60
    means = np.array([picture.mean((0, 1)) for picture in pictures])
    assert np.ptp(means, axis=0).max() > 20
    np.testing.assert_array_equal(pictures[0], draw_background(BACKGROUND_NAMES[0]))
