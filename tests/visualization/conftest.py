"""Looks at what a chart is made of: its figure, and every text that is drawn with its place."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


@dataclass
class Drawing:
    picture: np.ndarray
    figure: Figure
    places: list[tuple[str, Bbox]]

    @property
    def texts(self):
        return [text for text, _ in self.places]

    @property
    def legend(self):
        legends = [*self.figure.legends, *(axes.get_legend() for axes in self.figure.axes)]
        return [text.get_text() for legend in legends if legend for text in legend.get_texts()]

    def assert_legible(self):
        height, width, channels = self.picture.shape
        assert self.picture.dtype == np.uint8 and channels == 3
        for text, box in self.places:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
        for (first, box), (second, other) in combinations(self.places, 2):
            assert not box.padded(-1).overlaps(other.padded(-1)), (first, second)


@pytest.fixture
def draw(monkeypatch):
    """Calls a function that draws one chart."""

    def run(function, *args, **options):
        figures, texts = [], []
        draw_canvas, draw_text = FigureCanvasAgg.draw, Text.draw

        def canvas_spy(canvas):
            figures.append(canvas.figure)
            draw_canvas(canvas)

        def text_spy(text, *args, **options):
            texts.append(text)
            draw_text(text, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(FigureCanvasAgg, "draw", canvas_spy)
            patch.setattr(Text, "draw", text_spy)
            picture = function(*args, **options)
        (figure,) = figures
        drawn = [text for text in dict.fromkeys(texts) if text.get_visible() and text.get_text()]
        places = [(text.get_text(), text.get_window_extent()) for text in drawn]
        return Drawing(picture, figure, places)

    return run
