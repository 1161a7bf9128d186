import numpy as np
import pytest
from detectron2.data.catalog import Metadata

from qdformer.visualization.time_line import codeword_colors, time_line

NAMES = ["background", "dog", "violin", "man_of_a_long_name"]
COLORS = [(0, 0, 0), (220, 20, 20), (20, 200, 40), (40, 40, 160)]
SILENCE = np.log(0.01)


def metadata(names=NAMES, colors=COLORS):
    return Metadata(name="drawn", stuff_classes=names, stuff_colors=colors)


def silence(seconds):
    return np.full((round(100 * seconds), 64), SILENCE, np.float32)


def scores_of(count, **sounding):
    """A score for each span of each class that sounds, by its name."""
    scores = np.zeros((count, len(NAMES)), np.float32)
    for name, values in sounding.items():
        scores[:, NAMES.index(name)] = values
    return scores


def draw_scores(draw, scores, every=1.0, codes=None, **options):
    spectrogram = silence(every * len(scores))
    return draw(time_line, spectrogram, scores, codes, every, metadata(), **options)


def part(drawing, title):
    (axes,) = (a for a in drawing.figure.axes if title in a.get_title(loc="left"))
    return axes


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_classes_stand_in_order_of_appearance_with_color_and_score(draw):
    scores = scores_of(4, dog=[0, 0, 0.5, 1], violin=[0, 0.25, 0, 0], background=[1, 1, 1, 1])
    drawing = draw_scores(draw, scores)
    drawing.assert_legible()
    axes = part(drawing, "what sounds")
    assert labels(axes.yaxis) == ["violin", "dog"]
    cells = axes.images[0].get_array()
    np.testing.assert_allclose(cells[:, :, :3], np.divide(COLORS, 255)[[2, 1], None].repeat(4, 1))
    np.testing.assert_allclose(cells[:, :, 3], [[0, 0.4, 0, 0], [0, 0, 0.6, 1]], atol=1e-6)
    # The first row is the upper one, and a second is as wide as a second.
    assert axes.images[0].get_extent() == [0, 4, 1.5, -0.5]
    assert axes.get_xlim() == (0, 4)


def test_classes_show_in_the_picture_where_they_sound(draw):
    drawing = draw_scores(draw, scores_of(10, dog=[0] * 4 + [1] * 2 + [0] * 4))
    red = (drawing.picture == COLORS[1]).all(axis=2).nonzero()[1]
    inside = part(drawing, "what sounds").get_window_extent()
    places = (np.array([red.min(), red.max() + 1]) - inside.x0) / inside.width
    np.testing.assert_allclose(places, [0.4, 0.6], atol=0.005)


def test_scores_out_of_range_and_numbers_that_are_none(draw):
    scores = scores_of(3, dog=[np.nan, 7, 1e-3], violin=[np.nan] * 3)
    axes = part(draw_scores(draw, scores), "what sounds")
    assert labels(axes.yaxis) == ["dog"]
    opacity = axes.images[0].get_array()[0, :, 3]
    assert opacity[0] == 0 and opacity[1] == 1 and 0.1 < opacity[2] < 0.3


def test_nothing_sounds(draw):
    drawing = draw_scores(draw, scores_of(5, background=1), codes=np.zeros((5, 2), int))
    drawing.assert_legible()
    assert "nothing sounds" in drawing.texts


def test_codewords_have_their_color_and_number(draw):
    codes = np.array([[3, 127], [3, 5], [8, 5]])
    drawing = draw_scores(draw, scores_of(3, dog=1), codes=codes, title="a $video$")
    drawing.assert_legible()
    axes = part(drawing, "codewords")
    assert labels(axes.yaxis) == ["token 0", "token 1"]
    np.testing.assert_allclose(axes.images[0].get_array(), codeword_colors(codes.T))
    numbers = {text.get_text(): text.get_position() for text in axes.texts}
    # One number stands in the middle of neighbors that share it.
    assert numbers == {"3": (1, 0), "8": (2.5, 0), "127": (0.5, 1), "5": (2, 1)}
    assert "a $video$" in drawing.texts


def test_codewords_keep_their_colors_and_differ(draw):
    colors = codeword_colors(np.arange(128))
    assert colors.shape == (128, 3) and colors.min() >= 0 and colors.max() <= 1
    np.testing.assert_array_equal(codeword_colors(np.array([[7, 100]])), colors[None, [7, 100]])
    apart = np.abs(colors[:, None] - colors).max(axis=2) + np.eye(128)
    assert apart.min() > 0.02
    # Neighbors are told apart at a glance, and black numbers are legible on all.
    assert np.diagonal(apart, 1).min() > 0.2
    assert (colors @ [0.299, 0.587, 0.114]).min() > 0.35


def test_without_codewords_the_part_is_left_out(draw):
    scores = scores_of(4, dog=1)
    without = draw_scores(draw, scores)
    assert len(without.figure.axes) == 2
    with_codes = draw_scores(draw, scores, codes=np.zeros((4, 5), int))
    assert len(with_codes.figure.axes) == 3
    assert len(with_codes.picture) > len(without.picture)


def test_sound_stands_under_its_seconds(draw):
    spectrogram = silence(8)
    spectrogram[200:400, :32] = 1
    drawing = draw(time_line, spectrogram, scores_of(4), None, 2.0, metadata())
    axes = part(drawing, "sound, as")
    bright = drawing.picture.max(axis=2).astype(int) - drawing.picture.min(axis=2) > 40
    rows, columns = bright.nonzero()
    inside = axes.get_window_extent()
    places = (np.array([columns.min(), columns.max() + 1]) - inside.x0) / inside.width
    np.testing.assert_allclose(places, [0.25, 0.5], atol=0.005)
    # Low frequencies are below.
    lower = len(drawing.picture) - rows.min() - inside.y0
    assert lower / inside.height == pytest.approx(0.5, abs=0.03)
    assert labels(axes.yaxis) == ["125 Hz", "7.5 kHz"]


def test_silence_and_no_sound_at_all_are_black(draw):
    for spectrogram in (silence(3), silence(0)):
        drawing = draw(time_line, spectrogram, scores_of(3), None, 1.0, metadata())
        box = part(drawing, "sound, as").get_window_extent().padded(-3)
        height = len(drawing.picture)
        rows = slice(round(height - box.y1), round(height - box.y0))
        assert drawing.picture[rows, round(box.x0) : round(box.x1)].max() <= 5


@pytest.mark.parametrize(
    ("count", "every", "last", "unit"),
    [
        (5, 0.1, "0.5", "seconds"),
        (1, 1, "1", "seconds"),
        (10, 1, "10", "seconds"),
        (120, 1, "120", "seconds"),
        (130, 1, "2:10", "minutes:seconds"),
        (3600, 1, "60:00", "minutes:seconds"),
        (3600, 24, "1440:00", "minutes:seconds"),
    ],
)
def test_time_axis(draw, count, every, last, unit):
    scores = scores_of(count, dog=1)
    drawing = draw(time_line, silence(2), scores, None, every, metadata())
    drawing.assert_legible()
    lowest = drawing.figure.axes[-1]
    assert lowest.get_xlabel() == f"time ({unit})"
    ticks = [text for text in labels(lowest.xaxis) if text in drawing.texts]
    assert ticks[0] in ("0", "0:00")
    assert last in ticks


def test_very_many_spans_lose_no_short_sound(draw):
    scores = scores_of(3600, dog=0, man_of_a_long_name=[0] * 3599 + [1])
    scores[1801, 1] = 1
    drawing = draw_scores(draw, scores, codes=np.full((3600, 20), 127))
    drawing.assert_legible()
    assert labels(part(drawing, "what sounds").yaxis) == ["dog", "man_of_a_long_name"]
    assert drawing.picture.shape[1] <= 2400
    for color in (COLORS[1], COLORS[3]):
        assert (drawing.picture == color).all(axis=2).any()


def test_neighboring_spans_in_one_cell_end_where_the_video_ends(draw):
    drawing = draw_scores(draw, scores_of(3601, dog=1), codes=np.arange(3601)[:, None] % 128)
    for title in ("what sounds", "codewords"):
        axes = part(drawing, title)
        assert axes.get_xlim() == (0, 3601)
        count = axes.images[0].get_array().shape[1]
        assert axes.images[0].get_extent()[:2] == [0, 3 * count]


def test_all_classes_and_the_longest_names(draw):
    names = ["background", *(f"class_{index}-with_a_very_long_name" for index in range(70))]
    colors = np.random.default_rng(0).integers(0, 256, (71, 3)).tolist()
    spectrogram, scores = silence(100), np.ones((100, 71))
    of = metadata(names, colors)
    drawing = draw(time_line, spectrogram, scores, None, 1.0, of, title="word " * 60)
    drawing.assert_legible()
    assert drawing.picture.shape[1] <= 2450
    assert labels(part(drawing, "what sounds").yaxis) == names[1:]


def test_inputs_are_not_changed(draw):
    scores = scores_of(3, dog=[np.nan, 0.5, 2])
    spectrogram, codes = silence(50), np.arange(6).reshape(3, 2)
    before = scores.copy(), spectrogram.copy(), codes.copy()
    draw(time_line, spectrogram, scores, codes, 1.0, metadata())
    for array, copy in zip((scores, spectrogram, codes), before, strict=True):
        np.testing.assert_array_equal(array, copy)
