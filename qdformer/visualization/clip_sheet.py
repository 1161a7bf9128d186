"""One picture of a clip: frames, sound, ground truth, prediction and codewords by the second."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import Metadata
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from qdformer.audio.log_mel import EXAMPLE_HOP, NUM_MEL_BANDS, log_mel_examples

from .chart import new_figure, picture
from .overlay import MIN_SIDE, overlay, to_short_side
from .spectrogram import draw_spectrogram

# Pixels: left of the columns for the rows' names, between columns, of a line of text.
_MARGIN, _GAP, _LINE = 128, 8, 20


def clip_sheet(
    images: Sequence[np.ndarray],
    waveform: np.ndarray | Tensor,
    ground_truth: Sequence[np.ndarray | None] | None,
    prediction: Sequence[np.ndarray],
    metadata: Metadata,
    codes: Mapping[str, np.ndarray] | None = None,
    annotated: Sequence[bool] | None = None,
    title: str | None = None,
    max_frames: int = 10,
) -> np.ndarray:
    """Draw one clip so that the picture explains itself.

    From the top: the frames with the second each stands for; the sound as a log-mel spectrogram,
    each second under its frame; ground truth and prediction over the frames; the codewords of
    each second and of the clip; the colors of the classes. Of a longer clip ``max_frames`` frames
    are shown, spread evenly, and the seconds of the sound lie under them to within half a second.

    Args:
        images: (T, H, W, 3) uint8 RGB, one frame a second.
        waveform: (L,) float32 at 16 kHz, or (E, 1, 96, 64) log-mel examples, 0.96 s apart, where
            the sound itself is not at hand. What lies beyond T seconds is not shown.
        ground_truth: T label maps (h, w), or None for a clip without, which leaves the row out.
        prediction: T label maps (h, w).
        metadata: Detectron2 metadata with ``stuff_classes`` and ``stuff_colors``.
        codes: The codeword indices: ``"local"`` (T, N) and ``"global"`` (N,); None leaves them out.
        annotated: (T,) bool, which frames of ``ground_truth`` count; the others are marked as not
            annotated. By default those whose label map is not None.
        title: A line at the top, for instance the clip's id.
        max_frames: The largest number of frames shown, at least 1.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    shown = _evenly(len(images), max_frames)
    frames = [to_short_side(np.asarray(images[t]), MIN_SIDE) for t in shown]
    columns = _Columns(len(shown), frames[0].shape[1])
    rows: dict[str, list[np.ndarray | None]] = {"prediction": [prediction[t] for t in shown]}
    if ground_truth is not None:
        if annotated is None:
            annotated = [label_map is not None for label_map in ground_truth]
        truths = [ground_truth[t] if annotated[t] else None for t in shown]
        rows = {"ground truth": truths, **rows}

    strips = [_title_strip(columns, title or "")]
    strips.append(_frame_strip(columns, "frames", frames, above=[f"{t}–{t + 1} s" for t in shown]))
    strips.append(_sound_strip(columns, waveform, len(images)))
    strips += [_label_strip(columns, *row, frames, metadata) for row in rows.items()]
    if codes is not None:
        local = [codes["local"][t] for t in shown]
        strips.append(_code_strip(columns, "local codes", local, columns.width))
        clip = [codes["global"]]
        strips.append(_code_strip(columns, "global codes", clip, columns.total - _MARGIN))
    strips.append(_legend_strip(columns, sum(rows.values(), []), metadata))
    return np.concatenate(strips)


@dataclass(frozen=True)
class _Columns:
    """Where the frames lie from left to right, in pixels."""

    count: int
    width: int

    @property
    def total(self) -> int:
        return self.left(self.count) + _GAP

    def left(self, index: int) -> int:
        return _MARGIN + index * (self.width + _GAP)

    def middle(self, index: int) -> float:
        return self.left(index) + self.width / 2


def _evenly(num_frames: int, max_frames: int) -> list[int]:
    """The frames in the middle of equal parts of the clip; all of them if they are few enough."""
    count = min(num_frames, max_frames)
    return [(2 * part + 1) * num_frames // (2 * count) for part in range(count)]


def _strip(columns: _Columns, height: int, draw: Callable[[Figure], None]) -> np.ndarray:
    """What ``draw`` puts on a white strip as wide as the sheet."""
    figure = new_figure(columns.total, height, arrange=False)
    draw(figure)
    return picture(figure)


def _write(figure: Figure, x: float, y: float, text: str, **style) -> None:
    """Text at pixels from the lower left corner."""
    style = {"fontsize": 10, "va": "center", **style}
    figure.text(x, y, text, transform=None, **style)


def _frame_strip(
    columns: _Columns,
    name: str,
    frames: list[np.ndarray],
    above: Sequence[str] = (),
    within: Sequence[str] = (),
) -> np.ndarray:
    """A row of pictures, with a line of text above each or within each."""
    height = frames[0].shape[0]

    def draw(figure: Figure) -> None:
        _write(figure, _GAP, _GAP + height / 2, name, weight="bold")
        for index, frame in enumerate(frames):
            figure.figimage(frame, columns.left(index), _GAP, origin="upper")
        for y, lines in ((_GAP + height + _LINE / 2, above), (_GAP + height / 2, within)):
            for index, line in enumerate(lines):
                _write(figure, columns.middle(index), y, line, ha="center")

    return _strip(columns, height + _GAP + (_LINE if above else 0), draw)


def _label_strip(
    columns: _Columns,
    name: str,
    label_maps: list[np.ndarray | None],
    frames: list[np.ndarray],
    metadata: Metadata,
) -> np.ndarray:
    """A row of label maps over their frames; a frame without one fades and says so."""
    pictures = [
        255 - (255 - frame) // 4 if label_map is None else overlay(frame, label_map, metadata)
        for frame, label_map in zip(frames, label_maps, strict=True)
    ]
    notes = ["not annotated" if label_map is None else "" for label_map in label_maps]
    return _frame_strip(columns, name, pictures, within=notes)


def _sound_strip(columns: _Columns, waveform: np.ndarray | Tensor, num_seconds: int) -> np.ndarray:
    """The log-mel spectrogram; a second is as wide as a frame and the gaps' halves beside it."""
    examples = np.asarray(waveform)
    if examples.ndim == 1:
        examples = log_mel_examples(examples, math.ceil(num_seconds / EXAMPLE_HOP)).numpy()
    bands, axis = 100, 44
    height = bands + axis + _GAP

    def draw(figure: Figure) -> None:
        _write(figure, _GAP, axis + bands / 2, "sound", weight="bold")
        left, right = (columns.left(index) - _GAP / 2 for index in (0, columns.count))
        axes = figure.add_axes(
            (left / columns.total, axis / height, (right - left) / columns.total, bands / height),
        )
        columns_of_sound = examples.reshape(-1, NUM_MEL_BANDS)
        draw_spectrogram(axes, columns_of_sound, len(examples) * EXAMPLE_HOP)
        axes.set_xlim(0, num_seconds)
        axes.set_xlabel("seconds", fontsize=9, labelpad=2)
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
        axes.tick_params(labelsize=9)

    return _strip(columns, height, draw)


def _title_strip(columns: _Columns, title: str) -> np.ndarray:
    lines = textwrap.wrap(title, columns.total // 11)
    height = (_LINE + 2) * len(lines) + _GAP

    def draw(figure: Figure) -> None:
        _write(figure, _GAP, height / 2 - 2, "\n".join(lines), fontsize=12, weight="bold")

    return _strip(columns, height, draw)


def _code_strip(
    columns: _Columns, name: str, codes: Sequence[np.ndarray], width: int
) -> np.ndarray:
    """Codeword indices, those of each column in ``width`` pixels from its left edge."""
    texts = [_even_lines([str(int(code)) for code in row], width // 9) for row in codes]
    height = _LINE * max(map(len, texts))

    def draw(figure: Figure) -> None:
        _write(figure, _GAP, height, name, va="top", weight="bold")
        for index, lines in enumerate(texts):
            _write(figure, columns.left(index), height, "\n".join(lines), va="top")

    return _strip(columns, height, draw)


def _even_lines(words: list[str], width: int) -> list[str]:
    """Words in as few lines of ``width`` characters as hold them, as many in each."""
    fitting = max(1, width // (2 + max(map(len, words), default=0)))
    count = max(1, math.ceil(len(words) / fitting))
    each = max(1, math.ceil(len(words) / count))
    return ["  ".join(words[start : start + each]) for start in range(0, len(words), each)]


def _legend_strip(
    columns: _Columns, label_maps: list[np.ndarray | None], metadata: Metadata
) -> np.ndarray:
    """The color and name of every class that the sheet shows."""
    drawn = [np.unique(label_map) for label_map in label_maps if label_map is not None]
    names = metadata.stuff_classes
    labels = [label for label in np.unique(np.concatenate(drawn)) if 0 < label < len(names)]
    patches = [
        Patch(color=np.divide(metadata.stuff_colors[label], 255), label=names[label])
        for label in labels
    ]
    longest = max((len(names[label]) for label in labels), default=0)
    in_a_row = max(1, (columns.total - _MARGIN) // (9 * longest + 48))
    height = _LINE * max(1, math.ceil(len(labels) / in_a_row)) + 2 * _GAP

    def draw(figure: Figure) -> None:
        _write(figure, _GAP, height - _GAP - _LINE / 2, "classes", weight="bold")
        if patches:
            figure.legend(
                handles=patches,
                ncols=in_a_row,
                loc="upper left",
                bbox_to_anchor=(_MARGIN / columns.total, 1),
                borderaxespad=0,
                borderpad=0.8,
                labelspacing=0.4,
                frameon=False,
                fontsize=10,
            )
        else:
            _write(figure, _MARGIN, height - _GAP - _LINE / 2, "no object")

    return _strip(columns, height, draw)
