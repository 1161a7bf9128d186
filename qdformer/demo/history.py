"""What a video's time line needs of each of its spans, small enough to keep for hours."""

import numpy as np
from detectron2.data import Metadata

from qdformer.audio.log_mel import EXAMPLE_FRAMES
from qdformer.predictor import SegmentedFrame
from qdformer.visualization.time_line import time_line

COLUMNS = 8
"""Of the spectrogram, for each span."""


class History:
    """Gathers the results of a video for its time line."""

    def __init__(self, metadata: Metadata, every: float):
        """
        Args:
            metadata: of the predictor.
            every: seconds of a span.
        """
        self.metadata, self.every = metadata, every
        self._sound: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._codes: list[np.ndarray | None] = []

    def add(self, frame: SegmentedFrame) -> None:
        """Add the next segmented frame."""
        columns = frame.log_mel.reshape(COLUMNS, EXAMPLE_FRAMES // COLUMNS, -1).max(1)
        scores = np.zeros(len(self.metadata.stuff_classes), np.float32)
        scores[frame.instances.pred_classes.numpy() + 1] = frame.instances.scores.numpy()
        self._sound.append(columns)
        self._scores.append(scores)
        self._codes.append(None if frame.local_codes is None else frame.local_codes.numpy())

    @property
    def scores(self) -> np.ndarray:
        """(T, num_classes + 1) how sure the model is of each class in each span; 0 if not seen."""
        return np.stack(self._scores)

    def draw(self, title: str) -> np.ndarray:
        """(h, w, 3) uint8 RGB, see :func:`qdformer.visualization.time_line.time_line`."""
        kept = [codes for codes in self._codes if codes is not None]
        codes = np.stack(kept) if kept else None
        return time_line(
            np.concatenate(self._sound),
            self.scores,
            codes,
            self.every,
            self.metadata,
            title=title,
        )
