"""An animated picture of what is seen and heard in a video, for pages that play no sound."""

from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata
from PIL import Image

from qdformer.audio.log_mel import SILENT_LOG_MEL
from qdformer.predictor import SegmentedFrame
from qdformer.visualization.overlay import overlay

WIDTH, MOST = 448, 40
"""Pixels, and segmented frames at most: those from the video's beginning."""

_SOUND = 72  # pixels of the spectrogram's height


class Preview:
    """Gathers the results of a video for its animated picture."""

    def __init__(self, metadata: Metadata, every: float):
        """
        Args:
            metadata: of the predictor.
            every: seconds of a span.
        """
        self.metadata, self.every = metadata, every
        self._pictures: list[np.ndarray] = []
        self._sound: list[np.ndarray] = []

    def add(self, frame: SegmentedFrame) -> None:
        """Add the next segmented frame."""
        if len(self._pictures) == MOST:
            return
        height, width = frame.image.shape[:2]
        size = WIDTH, max(1, round(height * WIDTH / width))
        image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        drawn = overlay(image, frame.label_map, self.metadata)
        self._pictures.append(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))
        self._sound.append(frame.log_mel)

    def write(self, path: Path) -> None:
        """Write a GIF: each second its overlay, above the sound of all with that second framed.

        Args:
            path: of the file.
        """
        sound = np.concatenate(self._sound).T[::-1]
        loudest = max(0.0, sound.max())
        levels = np.uint8(255 * ((sound - SILENT_LOG_MEL) / (loudest - SILENT_LOG_MEL)).clip(0, 1))
        levels = cv2.resize(levels, (WIDTH, _SOUND), interpolation=cv2.INTER_AREA)
        strip = cv2.applyColorMap(levels, cv2.COLORMAP_MAGMA)[..., ::-1]
        images = []
        for index, picture in enumerate(self._pictures):
            now = strip.copy()
            left, right = (
                round((WIDTH - 1) * place / len(self._pictures)) for place in (index, index + 1)
            )
            cv2.rectangle(now, (left, 0), (right, _SOUND - 1), (255, 255, 255), 2)
            images.append(Image.fromarray(np.concatenate([picture, now])))
        duration = max(100, round(1000 * self.every))
        images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0)
