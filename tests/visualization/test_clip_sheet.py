import threading

import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from matplotlib import _pylab_helpers

from qdformer.audio.log_mel import log_mel
from qdformer.visualization.clip_sheet import clip_sheet
from qdformer.visualization.overlay import MIN_SIDE

RATE = 16000
DOG, VIOLIN = (220, 20, 20), (20, 200, 40)


@pytest.fixture
def metadata():
    return Metadata(
        name="drawn",
        stuff_classes=["background", "dog", "violin"],
        stuff_colors=[(0, 0, 0), DOG, VIOLIN],
        ignore_label=255,
    )


def tone(hertz, seconds, amplitude=0.5):
    times = np.arange(int(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def clip(num_frames, size=64):
    """Frame t is plain gray of value 100 + 10 t; nothing sounds."""
    grays = 100 + 10 * np.arange(num_frames, dtype=np.uint8)
    images = np.broadcast_to(grays[:, None, None, None], (num_frames, size, size, 3))
    return images, np.zeros((num_frames, size, size), np.uint8)


def has_color(picture, color, pixels=50):
    return (np.abs(picture.astype(int) - color).max(axis=-1) <= 2).sum() >= pixels


def saturation(sheet):
    return sheet.max(axis=2).astype(int) - sheet.min(axis=2)


def columns_of(sheet, image):
    """Where a plain frame stands from left to right."""
    return np.flatnonzero((sheet == image[0, 0]).all(axis=2).sum(axis=0) >= MIN_SIDE / 2)


def test_sheet_grows_by_one_column_a_frame(metadata):
    counts = [1, 2, 3, 10]
    clips = [clip(count) for count in counts]
    sheets = [clip_sheet(images, tone(440, 2), maps, maps, metadata) for images, maps in clips]
    assert all(sheet.dtype == np.uint8 and sheet.shape[2] == 3 for sheet in sheets)
    columns = np.diff([sheet.shape[1] for sheet in sheets]) / np.diff(counts)
    assert (columns == columns[0]).all() and columns[0] > MIN_SIDE
    assert len({len(sheet) for sheet in sheets}) == 1


@pytest.mark.parametrize("size", [64, 224, 500])
def test_all_frame_sizes_give_one_sheet_size(metadata, size):
    images, labels = clip(3, size)
    small, small_labels = clip(3)
    reference = clip_sheet(small, tone(440, 3), small_labels, small_labels, metadata)
    sheet = clip_sheet(images, tone(440, 3), labels, labels, metadata)
    np.testing.assert_array_equal(sheet, reference)


def test_each_frame_appears_once_in_each_row(metadata):
    images, labels = clip(5)
    sheet = clip_sheet(images, tone(440, 5), labels, labels, metadata)
    for t, image in enumerate(images):
        columns = (sheet == image[0, 0]).all(axis=2).sum(axis=0)
        full = np.flatnonzero(columns >= 3 * MIN_SIDE)
        assert len(full) == MIN_SIDE, t
        assert full[-1] - full[0] == MIN_SIDE - 1


def test_long_clips_show_frames_spread_evenly(metadata):
    images, labels = clip(15)
    sheet = clip_sheet(images, tone(440, 15), labels, labels, metadata, max_frames=3)
    few = clip_sheet(images[:3], tone(440, 3), labels[:3], labels[:3], metadata)
    assert sheet.shape == few.shape
    shown = [t for t in range(15) if has_color(sheet, images[t, 0, 0], 3 * MIN_SIDE**2)]
    assert shown == [2, 7, 12]


def test_truth_and_prediction_have_rows_of_their_own(metadata):
    images, empty = clip(2)
    dog, violin = empty.copy(), empty.copy()
    dog[0, 8:32, 8:56], violin[1, 8:32, 8:56] = 1, 2
    sheet = clip_sheet(images, 0 * tone(440, 2), dog, violin, metadata)

    def painted(color, t):
        blend = (np.array(color) + images[t, 0, 0]) / 2
        return (np.abs(sheet - blend).max(axis=2) <= 2).nonzero()

    dog_rows, dog_columns = painted(DOG, 0)
    violin_rows, violin_columns = painted(VIOLIN, 1)
    assert len(dog_rows) > 5000 and len(violin_rows) > 5000
    assert dog_rows.max() < violin_rows.min()
    assert dog_columns.max() < violin_columns.min()
    assert has_color(sheet[-40:], DOG) and has_color(sheet[-40:], VIOLIN)


def test_legend_names_only_what_is_drawn(metadata):
    images, empty = clip(2)
    violin = np.full_like(empty, 255)
    violin[:, 8:32, 8:56] = 2
    sheet = clip_sheet(images, tone(440, 2), empty, violin, metadata)
    assert has_color(sheet[-40:], VIOLIN) and not has_color(sheet[-40:], DOG, 1)
    nothing = clip_sheet(images, tone(440, 2), empty, empty, metadata)
    assert saturation(nothing[-40:]).max() == 0


def test_frames_without_annotation_fade_and_are_not_painted(metadata):
    images, labels = clip(3)
    labels[:, 8:32, 8:56] = 1
    flags = [True, False, False]
    by_flag = clip_sheet(images, tone(440, 3), labels, labels, metadata, annotated=flags)
    by_none = clip_sheet(images, tone(440, 3), [labels[0], None, None], labels, metadata)
    np.testing.assert_array_equal(by_flag, by_none)

    everywhere = clip_sheet(images, tone(440, 3), labels, labels, metadata)
    changed = (by_flag != everywhere).any(axis=2)
    rows, columns = changed.nonzero()
    assert rows.max() - rows.min() < MIN_SIDE
    assert columns.min() > columns_of(everywhere, images[0]).max()
    faded = by_flag[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert faded.min(axis=2).mean() > 200


def test_clip_without_ground_truth_has_one_row_less(metadata):
    images, labels = clip(2)
    with_row = clip_sheet(images, tone(440, 2), labels, labels, metadata)
    without = clip_sheet(images, tone(440, 2), None, labels, metadata)
    assert len(with_row) - len(without) == pytest.approx(MIN_SIDE, abs=16)


def test_the_sound_stands_under_the_second_in_which_it_is_heard(metadata):
    images, labels = clip(5)
    waveform = np.zeros(5 * RATE, np.float32)
    waveform[3 * RATE : 4 * RATE] = tone(1000, 1)
    sheet = clip_sheet(images, waveform, labels, labels, metadata)
    colored = np.flatnonzero((saturation(sheet) > 60).any(axis=0))
    frame = columns_of(sheet, images[3])
    assert colored[0] == pytest.approx(frame[0], abs=12)
    assert colored[-1] == pytest.approx(frame[-1], abs=12)


def test_higher_pitch_stands_higher(metadata):
    images, labels = clip(2)

    def brightest_row(hertz):
        sheet = clip_sheet(images, tone(hertz, 2), labels, labels, metadata)
        return saturation(sheet).sum(axis=1).argmax()

    assert brightest_row(4000) < brightest_row(1000) < brightest_row(200)


def test_log_mel_stands_in_for_the_sound(metadata):
    images, labels = clip(5)
    waveform = torch.from_numpy(tone(700, 5))
    heard = clip_sheet(images, waveform, labels, labels, metadata)
    examples = clip_sheet(images, log_mel(waveform), labels, labels, metadata)
    # Five examples end after 4.8 s; what is before is the same picture.
    differing = np.flatnonzero((heard != examples).any(axis=(0, 2)))
    assert differing.min() >= columns_of(heard, images[4])[0] + 0.75 * MIN_SIDE


@pytest.mark.parametrize("seconds", [0.01, 1.3, 9])
def test_any_length_of_sound(metadata, seconds):
    images, labels = clip(2)
    reference = clip_sheet(images, tone(440, 2), labels, labels, metadata)
    sheet = clip_sheet(images, tone(440, seconds), labels, labels, metadata)
    assert sheet.shape == reference.shape
    if seconds > 2:
        # The last 25 ms window of the shorter sound ends in silence.
        end = columns_of(sheet, images[1])[-1] - 10
        np.testing.assert_array_equal(sheet[:, :end], reference[:, :end])


def test_codes_stand_under_their_seconds(metadata):
    images, labels = clip(3)
    codes = {"local": np.array([[1, 2], [3, 4], [5, 6]]), "global": np.array([7, 8])}
    plain = clip_sheet(images, tone(440, 3), labels, labels, metadata)
    sheet = clip_sheet(images, tone(440, 3), labels, labels, metadata, codes=codes)
    assert 30 <= len(sheet) - len(plain) <= 60

    other = {"local": codes["local"].copy(), "global": codes["global"]}
    other["local"][1] = [99, 100]
    changed = clip_sheet(images, tone(440, 3), labels, labels, metadata, codes=other) != sheet
    columns = np.flatnonzero(changed.any(axis=(0, 2)))
    frame = columns_of(sheet, images[1])
    assert frame[0] <= columns[0] and columns[-1] <= frame[-1]


def test_many_codes_are_broken_into_lines_within_their_column(metadata):
    images, labels = clip(2)
    codes = {"local": np.full((2, 24), 511), "global": np.full(24, 511)}
    sheet = clip_sheet(images, tone(440, 2), labels, labels, metadata, codes=codes)
    single = {"local": codes["local"][:, :1], "global": codes["global"][:1]}
    few = clip_sheet(images, tone(440, 2), labels, labels, metadata, codes=single)
    assert sheet.shape[1] == few.shape[1] and len(sheet) > len(few) + 60
    first, second = (columns_of(sheet, image) for image in images)
    # The clip's own codes further down go across the gap.
    between = sheet[len(few) - 80 : len(few) - 10, first[-1] + 1 : second[0]]
    assert (between == 255).all()


def test_title_adds_lines_and_takes_no_markup(metadata):
    images, labels = clip(1)

    def height(title):
        return len(clip_sheet(images, tone(440, 1), labels, labels, metadata, title=title))

    assert height(None) < height("a_$1_b$ \\frac{") < height("many words of a title " * 4)


def test_pyplot_keeps_nothing_and_threads_do_not_mix(metadata):
    clips = [clip(count) for count in (1, 2, 3)]
    expected = [clip_sheet(i, tone(440, len(i)), m, m, metadata) for i, m in clips]
    found = [None] * 3

    def draw(index):
        images, labels = clips[index]
        found[index] = clip_sheet(images, tone(440, len(images)), labels, labels, metadata)

    threads = [threading.Thread(target=draw, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sheet, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(sheet, reference)
    assert not _pylab_helpers.Gcf.figs


@pytest.mark.parametrize("name", [r"$\frac{$", "$$", "\ud800", "狗"])
def test_any_name_is_written_as_text(name):
    metadata = Metadata(stuff_classes=["background", name], stuff_colors=[(0, 0, 0), DOG])
    images, labels = clip(2)
    labels[:, 20:40, 20:40] = 1
    assert clip_sheet(images, tone(440, 2), labels, labels, metadata).size
