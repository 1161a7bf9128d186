"""A label map drawn over its frame."""

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils.visualizer import VisImage, Visualizer

# Pixels of the shorter side that a class name needs to be legible.
MIN_SIDE = 224


def overlay(
    image: np.ndarray, label_map: np.ndarray, metadata: Metadata, alpha: float = 0.5
) -> np.ndarray:
    """Draw the objects of a label map over its frame, each with its class's colour and name.

    Background (0), and every label without a class name, as the ignore label 255 is, stay as the
    frame has them. A frame whose shorter side is below ``MIN_SIDE`` pixels is enlarged to it first,
    since the names would cover it otherwise.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_map: (h, w) integers, the class of each pixel; brought to the frame's size if it has
            another.
        metadata: Detectron2 metadata with ``stuff_classes`` (index 0 is the background) and
            ``stuff_colors`` (RGB, 0 to 255).
        alpha: Opacity of the colours, 0 to 1.

    Returns:
        (H', W', 3) uint8 RGB, the frame's size or the enlarged one.
    """
    image = to_short_side(image, max(MIN_SIDE, min(image.shape[:2])))
    size = image.shape[1::-1]
    labels = cv2.resize(
        np.asarray(label_map, dtype=np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT
    )
    nameless = len(metadata.stuff_classes)
    labels = np.where(labels == 0, nameless, labels)

    visualizer = Visualizer(image, metadata)
    drawing = visualizer.draw_sem_seg(labels, area_threshold=0, alpha=alpha)
    _arrange_names(drawing)
    return drawing.get_image()


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


def _arrange_names(drawing: VisImage) -> None:
    """Make names legible: white, inside the picture and beside each other.

    The Visualizer writes in the class's colour, too dark for some, at the middle of the object.
    """
    renderer = drawing.canvas.get_renderer()
    frame = drawing.fig.bbox
    placed = []
    for name in drawing.ax.texts:
        name.set_color("white")
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
