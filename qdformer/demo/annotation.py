"""What was found in a video, as a file: COCO's format with times and codewords."""

from typing import Any

from detectron2.data import Metadata

from qdformer.annotations.coco import coco_object
from qdformer.predictor import SegmentedFrame
from qdformer.video.reader import VideoFile

FRAME_NAME, MASK_NAME = "frames/{:06d}.jpg", "masks/{:06d}.png"


class Annotation:
    """Gathers the results of a video.

    The document is COCO's: ``images`` are the segmented frames, ``annotations`` their objects with
    ``segmentation`` as run lengths, ``categories`` the classes. Beyond COCO there are

    - ``info``: ``video``, ``rate`` (frames per second), ``every`` (seconds between segmented
      frames), ``sound_track`` (from 0; None without sound);
    - in ``images``: ``begin`` and ``end``, seconds that the frame stands for, and ``local_codes``
      and ``global_codes``, codewords of its tokens (None without a codebook), and ``label_map``, a
      picture whose pixels are ``category_id`` and 0 for background;
    - in ``annotations``: ``score``, the highest probability that a token gives the class.
    """

    def __init__(self, video: VideoFile, metadata: Metadata, every: float):
        """
        Args:
            video: whose results they are.
            metadata: of the predictor.
            every: seconds between segmented frames.
        """
        names, colors = metadata.stuff_classes, metadata.stuff_colors
        self._size = {"height": video.height, "width": video.width}
        self.document: dict[str, Any] = {
            "info": {
                "description": "Sounding objects, found by QDFormer",
                "video": video.name,
                "rate": float(video.rate),
                "every": every,
                "sound_track": video.sound_track,
            },
            "categories": [
                {"id": index, "name": names[index], "color": [int(v) for v in colors[index]]}
                for index in range(1, len(names))
            ],
            "images": [],
            "annotations": [],
        }

    def add(self, frame: SegmentedFrame) -> tuple[str, str]:
        """Add the next segmented frame.

        Returns:
            The names that its picture and its label map are to have.
        """
        images, annotations = self.document["images"], self.document["annotations"]
        picture, label_map = (name.format(len(images)) for name in (FRAME_NAME, MASK_NAME))
        image: dict[str, Any] = {
            "id": len(images),
            "file_name": picture,
            "label_map": label_map,
            **self._size,
            "begin": frame.begin,
            "end": frame.end,
            "local_codes": None if frame.local_codes is None else frame.local_codes.tolist(),
            "global_codes": None if frame.global_codes is None else frame.global_codes.tolist(),
        }
        images.append(image)
        found = frame.instances
        for mask, label, score in zip(found.pred_masks, found.pred_classes, found.scores):
            item = coco_object(len(annotations) + 1, image["id"], int(label) + 1, mask.numpy())
            annotations.append(item | {"score": float(score)})
        return picture, label_map
