"""A label map drawn over its frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils.visualizer import VisImage, Visualizer
from matplotlib.artist import Artist

from .chart import as_written
from .motion import follow

# Pixels of the shorter side that a class name needs to be legible.
MIN_SIDE = 224

_LONGEST_NAME = 40  # letters


def overlay(
    image: np.ndarray, label_map: np.ndarray, metadata: Metadata, alpha: float = 0.5
) -> np.ndarray:
    """Draw the objects of a label map over its frame, each with its class's color and name.

    Background (0), and every label without a class name, as the ignore label 255 is, stay as the
    frame has them. A frame whose shorter side is below ``MIN_SIDE`` pixels is enlarged to it first,
    since the names would cover it otherwise.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_map: (h, w) integers, the class of each pixel; brought to the frame's size if it has
            another.
        metadata: Detectron2 metadata with ``stuff_classes`` (index 0 is the background) and
            ``stuff_colors`` (RGB, 0 to 255).
        alpha: Opacity of the colors, 0 to 1.

    Returns:
        (H', W', 3) uint8 RGB, the frame's size or the enlarged one.
    """
    image = to_short_side(image, max(MIN_SIDE, min(image.shape[:2])))
    return _draw(image, label_map, metadata, alpha).get_image()


@dataclass(frozen=True)
class Layer:
    """What Detectron2's Visualizer draws over a frame, apart from the frame: shapes and names.

    A video shows many pictures for one label map. Drawing takes far longer than laying what is
    drawn over a picture, so that it is done once for all of them.
    """

    _shapes: "_Ink | None"
    _names: "_Ink | None"

    @classmethod
    def draw(
        cls, label_map: np.ndarray, size: tuple[int, int], metadata: Metadata, alpha: float = 0.5
    ) -> "Layer":
        """Draw the objects of a label map as :func:`overlay` does, whatever comes under them.

        The picture keeps its size: names are left out where its shorter side is below ``MIN_SIDE``.

        Args:
            label_map: (h, w) integers, the class of each pixel; brought to ``size`` if it has
                another.
            size: (height, width) of the pictures, pixels.
            metadata: Detectron2 metadata with ``stuff_classes`` (index 0 is the background) and
                ``stuff_colors`` (RGB, 0 to 255).
            alpha: Opacity of the colors, 0 to 1.
        """
        if not ((label_map > 0) & (label_map < len(metadata.stuff_classes))).any():
            return cls(None, None)
        height, width = size
        # The Visualizer refuses masks of two columns, which could be polygons.
        canvas = np.zeros((height, max(width, 3), 3), np.uint8)
        drawing = _draw(canvas, label_map, metadata, alpha)
        _, *masks = drawing.ax.images
        shapes = _Ink.of(drawing, [*drawing.ax.patches, *masks], width)
        legible = min(size) >= MIN_SIDE
        return cls(shapes, _Ink.of(drawing, drawing.ax.texts, width) if legible else None)

    def over(self, image: np.ndarray) -> np.ndarray:
        """Lay the drawing over a picture.

        Args:
            image: (H, W, 3) uint8 RGB of the size drawn for.

        Returns:
            (H, W, 3) uint8 RGB, ``image`` itself where nothing is drawn.
        """
        for ink in (self._shapes, self._names):
            if ink is not None:
                image = ink.over(image)
        return image

    def moved(self, motion: np.ndarray) -> "Layer":
        """Let the shapes follow what they lie on; names stay where they are, to be read.

        Args:
            motion: (H, W, 2) float32, from where each pixel comes, see
                :func:`~qdformer.visualization.motion.motion`.
        """
        return Layer(self._shapes and self._shapes.moved(motion), self._names)


class _Ink:
    """What covers a picture: a color for each pixel, and how much of the picture it leaves.

    Args:
        rgba: (H, W, 4) uint8, the color multiplied by its opacity.
    """

    def __init__(self, rgba: np.ndarray):
        self._rgba = rgba
        self._color = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
        self._seen = cv2.merge([255 - cv2.extractChannel(rgba, 3)] * 3)

    @classmethod
    def of(cls, drawing: VisImage, artists: Sequence[Artist], width: int) -> "_Ink":
        """The given parts of a drawing, without the frame; so many columns of it."""
        shown = set(artists)
        for artist in drawing.ax.get_children():
            artist.set_visible(artist in shown)
        drawing.canvas.draw()
        # Without the frame the canvas is transparent, and keeps the opacity of what is drawn.
        rgba = np.ascontiguousarray(np.asarray(drawing.canvas.buffer_rgba())[:, :width])
        return cls(cv2.cvtColor(rgba, cv2.COLOR_RGBA2mRGBA))

    def over(self, image: np.ndarray) -> np.ndarray:
        return cv2.add(cv2.multiply(image, self._seen, scale=1 / 255), self._color)

    def moved(self, motion: np.ndarray) -> "_Ink":
        """Each pixel from where it was; nothing comes from outside."""
        return _Ink(follow(self._rgba, motion))


def to_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Enlarge or shrink a picture so that its shorter side has the given length.

    Args:
        image: (H, W, 3) uint8.
        short_side: Pixels.

    Returns:
        (H', W', 3) uint8 of the same proportions with ``min(H', W') == short_side``.
    """
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale == 1:
        return image
    size = round(width * scale), round(height * scale)
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=interpolation)


def _draw(image: np.ndarray, label_map: np.ndarray, metadata: Metadata, alpha: float) -> VisImage:
    labels = cv2.resize(
        np.asarray(label_map, dtype=np.uint8),
        image.shape[1::-1],
        interpolation=cv2.INTER_NEAREST_EXACT,
    )
    nameless = len(metadata.stuff_classes)
    labels = np.where(labels == 0, nameless, labels)
    visualizer = Visualizer(image, metadata)
    drawing = visualizer.draw_sem_seg(labels, area_threshold=0, alpha=alpha)
    _arrange_names(drawing)
    return drawing


def _arrange_names(drawing: VisImage) -> None:
    """Make names legible: white, inside the picture and beside each other.

    The Visualizer writes in the class's color, too dark for some, at the middle of the object.
    """
    renderer = drawing.canvas.get_renderer()
    frame = drawing.fig.bbox
    placed: list[Any] = []
    for name in drawing.ax.texts:
        name.set_color("white")
        as_written(name, _LONGEST_NAME)
        box = name.get_window_extent(renderer).padded(2)
        inwards = box.translated(
            max(-box.x0, min(0, frame.x1 - box.x1)), max(-box.y0, min(0, frame.y1 - box.y1))
        )
        step = 1.1 * box.height
        lines = [inwards.translated(0, line * step) for line in sorted(range(-4, 5), key=abs)]
        free = [
            line
            for line in lines
            if line.y0 >= 0 and line.y1 <= frame.y1 and not any(map(line.overlaps, placed))
        ]
        placed.append(free[0] if free else inwards)
        x, y = name.get_position()
        # The Visualizer counts y from the top of the picture, matplotlib's boxes from the bottom.
        name.set_position((x + placed[-1].x0 - box.x0, y - placed[-1].y0 + box.y0))
