"""What all charts have in common: figures of a size in pixels, their pictures, their colors."""

import functools
import re
import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

_DPI = 100


def new_figure(width: int, height: int, title: str = "", *, arrange: bool = True) -> Figure:
    """An empty figure, without pyplot, which would keep it and is not safe in threads.

    Args:
        width: pixels.
        height: pixels.
        title: stands at the top, broken into lines; the figure gets higher by them.
        arrange: give axes, labels and legends the room that they need.
    """
    lines = textwrap.wrap(title, max(width // 12, 1))
    # matplotlib cuts fractions of a pixel off; a hundredth more keeps 12.96 in from being 1295 px.
    size = (width + 0.01) / _DPI, (height + 22 * len(lines) + 0.01) / _DPI
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
    if arrange:
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    if lines:
        figure.suptitle("\n".join(lines), fontsize=12, weight="bold")
    return figure


def picture(figure: Figure) -> np.ndarray:
    """Draw a figure of :func:`new_figure`: (h, w, 3) uint8 RGB.

    Names are written as they are: a dollar sign in one begins no formula.
    """
    for text in figure.findobj(Text):
        as_written(text)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def as_written(text: Text, longest: int | None = None) -> None:
    """Let a text show its letters: no formula, in fonts that have them, those it can.

    Args:
        text: changed in place.
        longest: letters that are shown at most; None for all.
    """
    shown = text.get_text().encode(errors="replace").decode()
    if longest is not None:
        shown = textwrap.shorten(shown, longest, placeholder="…") or f"{shown[: longest - 1]}…"
    text.set_text(shown)
    text.set_parse_math(False)
    if not shown.isascii():
        text.set_fontfamily([*text.get_fontfamily(), *_wide_fonts()])


@functools.cache
def _wide_fonts() -> tuple[str, ...]:
    """Installed fonts with the letters of many languages, which matplotlib's own lacks."""
    known = re.compile(r"CJK|WenQuanYi|Noto Sans$|Arial Unicode|Droid Sans Fallback|Unifont")
    return tuple({font.name for font in fontManager.ttflist if known.search(font.name)})


def colors(count: int) -> np.ndarray:
    """So many colors, (count, 3) RGB from 0 to 1: easily told apart up to 10, still up to 20."""
    if count <= 20:
        return matplotlib.colormaps["tab10" if count <= 10 else "tab20"](range(count))[:, :3]
    return matplotlib.colormaps["gist_rainbow"](np.linspace(0, 1, count))[:, :3]


def say_empty(axes: Axes, text: str) -> None:
    """Write into axes why nothing is drawn there."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
