"""One picture of a whole video: its sound, its codewords and what sounds, over the time."""

import math
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from detectron2.data import Metadata
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.ticker import FuncFormatter, MultipleLocator

from .chart import new_figure, picture
from .spectrogram import draw_spectrogram

# Pixels: of the time axis at least and at most, of a span while there is room, of the spectrogram,
# of a token's row and a class's row, of all that is around the three parts.
_SHORTEST, _LONGEST, _SPAN, _SOUND, _TOKEN, _CLASS, _AROUND = 640, 2100, 28, 110, 17, 22, 160
# Spans that are told apart; of more, some share a cell.
_MOST_CELLS = 1800
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_GOLDEN_RATIO = (5**0.5 - 1) / 2


def time_line(
    spectrogram: np.ndarray,
    scores: np.ndarray,
    codes: np.ndarray | None,
    every: float,
    metadata: Metadata,
    title: str | None = None,
) -> np.ndarray:
    """Draw what a model hears and names in a video, three parts under one time axis.

    From the top: the sound; the codewords, a row for each token, each codeword in a color of its
    own, which is the same in all pictures, with its number where there is room; the classes that
    sound, a row each, in the order in which they appear. Where a video has very many spans,
    neighbors share a cell, which shows the highest score of each class and the codewords of the
    first of them.

    Args:
        spectrogram: (columns, 64) log-mel, evenly from second 0 to the end of the last span.
        scores: (T, num_classes + 1), how sure the model is of each class in each span, 0 to 1, and
            0 where the class is not drawn; column 0 is the background and not read.
        codes: (T, N) codewords of each span; None leaves the part out.
        every: Seconds of a span.
        metadata: Detectron2 metadata with ``stuff_classes`` and ``stuff_colors``.
        title: A line at the top, for instance the video's name.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    length = int(np.clip(_SPAN * len(scores), _SHORTEST, _LONGEST))
    together = math.ceil(len(scores) / _MOST_CELLS)
    peaks = np.maximum.reduceat(np.nan_to_num(scores), range(0, len(scores), together))
    sounding = sorted(
        (label for label in range(1, peaks.shape[1]) if peaks[:, label].any()),
        key=lambda label: np.flatnonzero(peaks[:, label])[0],
    )
    names = [metadata.stuff_classes[label] for label in sounding]
    tokens = 0 if codes is None else codes.shape[1]
    heights = [_SOUND, _TOKEN * tokens, _CLASS * max(len(names), 2)]
    heights = [height for height in heights if height]
    margin = 8 * max([8, *map(len, names)]) + 40
    figure = new_figure(length + margin, sum(heights) + _AROUND, title or "")
    parts = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]

    end = every * len(scores)
    _draw_sound(parts[0], spectrogram, end)
    if codes is not None:
        _draw_codes(parts[1], codes[::together], together * every, length)
    colors = np.divide([metadata.stuff_colors[label] for label in sounding], 255)
    _draw_classes(parts[-1], peaks[:, sounding], names, colors, together * every)
    _set_time_axis(parts[-1], end, length)
    return picture(figure)


def codeword_colors(codes: np.ndarray) -> np.ndarray:
    """Give codewords pale colors: (...,) integers become (..., 3) RGB from 0 to 1.

    Steps of the golden ratio around the color circle keep codewords with near numbers apart, and
    those that come close again differ in saturation.
    """
    codes = np.asarray(codes)
    hue, saturation = codes * _GOLDEN_RATIO % 1, 0.2 + 0.15 * (codes % 4)
    return hsv_to_rgb(np.stack([hue, saturation, 1 - saturation / 4], axis=-1))


def _draw_sound(axes: Axes, spectrogram: np.ndarray, end: float) -> None:
    axes.set_title("sound, as a log-mel spectrogram", loc="left", fontsize=10)
    if len(spectrogram) > _LONGEST:
        size = spectrogram.shape[1], _LONGEST
        spectrogram = cv2.resize(np.float32(spectrogram), size, interpolation=cv2.INTER_AREA)
    draw_spectrogram(axes, spectrogram, end)


def _draw_codes(axes: Axes, codes: np.ndarray, span: float, length: int) -> None:
    axes.set_title("codewords (the same color is the same codeword)", loc="left", fontsize=10)
    count, tokens = codes.shape
    _draw_cells(axes, codeword_colors(codes.T), span, [f"token {n}" for n in range(tokens)])
    for token, row in enumerate(codes.T):
        starts = [0, *np.flatnonzero(np.diff(row)) + 1, count]
        for start, stop in pairwise(starts):
            name = str(row[start])
            if (stop - start) * length / count >= 7 * len(name) + 4:
                place = (start + stop) / 2 * span, token
                number = axes.text(*place, name, ha="center", va="center", fontsize=8)
                number.set_in_layout(False)


def _draw_classes(
    axes: Axes, scores: np.ndarray, names: Sequence[str], colors: np.ndarray, span: float
) -> None:
    axes.set_title("what sounds (the stronger the color, the surer)", loc="left", fontsize=10)
    if not names:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing sounds", ha="center", va="center", transform=axes.transAxes)
        return
    cells = np.empty((*scores.T.shape, 4))
    cells[..., :3] = colors[:, None]
    # The least sure is still seen on white.
    cells[..., 3] = np.where(scores.T > 0, 0.2 + 0.8 * scores.T.clip(0, 1), 0)
    _draw_cells(axes, cells, span, names)


def _draw_cells(axes: Axes, cells: np.ndarray, span: float, names: Sequence[str]) -> None:
    """A row of cells for each name, from the top; (rows, spans, 3 or 4) RGB and opacity."""
    rows, count = cells.shape[:2]
    extent = (0, count * span, rows - 0.5, -0.5)
    axes.imshow(cells, extent=extent, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(rows), names, fontsize=9)
    axes.hlines(np.arange(rows - 1) + 0.5, 0, count * span, colors="lightgray", linewidth=1)


def _set_time_axis(axes: Axes, end: float, length: int) -> None:
    """Label the seconds from 0 to the end, at most one in 60 of so many pixels."""
    steps = [step for step in _TICKS if end / step <= length / 60]
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(MultipleLocator(steps[0] if steps else _TICKS[-1]))
    if end > 120:
        axes.set_xlabel("time (minutes:seconds)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t // 60:.0f}:{t % 60:02.0f}"))
    else:
        axes.set_xlabel("time (seconds)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
