"""What was found in a video, as files: pictures, label maps, annotations and a time line."""

import shutil
from pathlib import Path

import numpy as np
from detectron2.data import Metadata
from PIL import Image

from qdformer.demo.annotation import FRAME_NAME, MASK_NAME, Annotation
from qdformer.io.atomic_write import write_json
from qdformer.predictor import SegmentedFrame
from qdformer.video.reader import VideoFile

ANNOTATIONS, TIME_LINE = "annotations.json", "time_line.png"


class ResultFolder:
    """Writes segmented frames as they come, and at the end what is said of all of them."""

    def __init__(self, folder: Path, video: VideoFile, metadata: Metadata, every: float):
        """
        Args:
            folder: is there; ``frames/`` and ``masks/`` in it are not.
            video: whose results they are.
            metadata: of the predictor.
            every: seconds between segmented frames.
        """
        self._folder, self._metadata = folder, metadata
        self._annotation = Annotation(video, metadata, every)
        for name in (FRAME_NAME, MASK_NAME):
            (folder / name).parent.mkdir()

    def add(self, frame: SegmentedFrame) -> None:
        """Write the next segmented frame."""
        picture, label_map = self._annotation.add(frame)
        Image.fromarray(frame.image).save(self._folder / picture, quality=95)
        image = Image.fromarray(frame.label_map, mode="P")
        image.putpalette(np.asarray(self._metadata.stuff_colors, np.uint8).tobytes())
        image.save(self._folder / label_map)

    def finish(self, time_line: np.ndarray) -> None:
        """Write the annotations and the time line.

        Args:
            time_line: see :meth:`qdformer.demo.history.History.draw`.
        """
        write_json(self._folder / ANNOTATIONS, self._annotation.document)
        Image.fromarray(time_line).save(self._folder / TIME_LINE)

    def zipped(self, archive: Path) -> Path:
        """All files of the folder in one, for a download.

        Args:
            archive: its path, which ends in ``.zip``, elsewhere.
        """
        return Path(shutil.make_archive(str(archive.with_suffix("")), "zip", self._folder))
