"""Tracks of objects, where the ground truth tells those of one class apart."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.io.run_lengths import encode
from qdformer.layers.mask_sampling import masks_at_size

TASK = "tracks"


class TrackEvaluator(DatasetEvaluator):
    """Average precision of tracks as YouTube-VIS has it, in per cent; nothing without tracks.

    The IoU of two tracks is that of all their pixels in all annotated frames. It is that of two
    masks if the frames lie one below the other in a single picture, so that COCO's own evaluation
    serves: ``AP`` (mean over the IoUs 0.5 to 0.95), ``AP50``, ``AP75``, and ``AR`` (of 10 tracks a
    clip), all over the classes with ground truth.

    A token is a track: the matching keeps it for a clip. Its class is the one with the largest sum
    of probabilities over the frames, its score their mean, its mask empty where another class is
    likelier or none likely enough. A clip longer than a window has its tokens linked by their
    number.
    """

    def __init__(self, dataset_name: str, output_dir: str | None, class_threshold: float):
        """
        Args:
            dataset_name: a registered data set.
            output_dir: folder for ``<dataset_name>_tracks.json``, a list like YouTube-VIS's results
                with the clips' names and the classes' labels for its ids; None writes none.
            class_threshold: ``MODEL.QDFORMER.CLASS_THRESHOLD``.
        """
        self._dataset_name, self._output_dir = dataset_name, output_dir
        self._names = MetadataCatalog.get(dataset_name).stuff_classes
        self._threshold = class_threshold
        self.reset()

    def reset(self) -> None:
        """Forget all clips."""
        self._clips: dict[str, dict[str, Any]] = {}

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Gather the tracks of some clips; those whose objects have none are passed over.

        Of a clip without any object all found tracks are false.

        Args:
            inputs: clips as the mapper gives them.
            outputs: what the model says of each, see
                :func:`qdformer.modeling.inference.segment_clip`.

        Raises:
            InputError: an annotated frame has another size than its clip.
        """
        for clip, output in zip(inputs, outputs, strict=True):
            frames = clip["sem_seg_file_names"]
            annotated = [t for t, frame in enumerate(frames) if frame is not None]
            if not all(isinstance(frames[t], FrameAnnotation) for t in annotated):
                continue
            if any(frames[t].objects and not frames[t].has_tracks for t in annotated):
                continue
            for frame in (frames[t] for t in annotated):
                if frame.size != (clip["height"], clip["width"]):
                    raise InputError(
                        f"{frame}: is of {frame.size[1]} x {frame.size[0]} pixels, and its clip of "
                        f"{clip['width']} x {clip['height']}"
                    )
            self._clips[clip["video_id"]] = {
                "size": [len(annotated) * clip["height"], clip["width"]],
                "truth": _true_tracks([frames[t] for t in annotated]),
                "found": self._found_tracks(clip, output, annotated),
            }

    def _found_tracks(self, clip: dict, output: dict, annotated: list[int]) -> list[dict]:
        scores, classes = output["scores"].cpu(), output["classes"].cpu()
        tracks = []
        for token in range(scores.shape[1]):
            sums = np.bincount(classes[:, token], scores[:, token], len(self._names))
            label = int(sums.argmax())
            seen = (classes[:, token] == label) & (scores[:, token] >= self._threshold)
            if not seen[annotated].any():
                continue
            masks = output["masks"][annotated, token] * seen[annotated, None, None].to(
                output["masks"].device
            )
            size = clip["height"], clip["width"]
            full = masks_at_size(masks, tuple(clip["image"].shape[-2:]), size) > 0.5
            tracks.append(
                {
                    "category_id": label,
                    "score": float(scores[seen, token].mean()),
                    "segmentation": encode(full.flatten(0, 1).numpy()),
                    "segmentations": [encode(mask) for mask in full.numpy()],
                }
            )
        return tracks

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Put the clips of all processes together.

        Returns:
            ``{"tracks": {metric: value}}``; empty without tracks, None off the main process.
        """
        gathered = comm.gather(self._clips)
        if not comm.is_main_process():
            return None
        clips = dict(sorted((name, clip) for part in gathered for name, clip in part.items()))
        if not any(clip["truth"] for clip in clips.values()):
            return {}
        if self._output_dir is not None:
            self._write(clips)
        return {TASK: _average_precision(clips, len(self._names))}

    def _write(self, clips: dict[str, dict[str, Any]]) -> None:
        results = [
            {"video_id": name, **{key: track[key] for key in track if key != "segmentation"}}
            for name, clip in clips.items()
            for track in clip["found"]
        ]
        path = Path(self._output_dir or "", f"{self._dataset_name}_tracks.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results) + "\n", encoding="utf-8")


def _true_tracks(frames: Sequence[FrameAnnotation]) -> list[dict[str, Any]]:
    """Label and stacked masks of each object."""
    masks: dict[tuple[int, int | None], np.ndarray] = {}
    for t, frame in enumerate(frames):
        for item in frame.objects:
            key = item.label, item.track
            whole = masks.setdefault(key, np.zeros((len(frames), *frame.size), bool))
            whole[t] |= frame.mask(item)
    return [
        {"category_id": label, "segmentation": encode(whole.reshape(-1, whole.shape[-1]))}
        for (label, _), whole in masks.items()
        if whole.any()
    ]


def _average_precision(clips: dict[str, dict[str, Any]], num_classes: int) -> dict[str, float]:
    truth: dict[str, list[dict]] = {"images": [], "annotations": []}
    found: list[dict] = []
    for number, clip in enumerate(clips.values(), start=1):
        height, width = clip["size"]
        truth["images"].append({"id": number, "height": height, "width": width})
        for track in clip["truth"]:
            known = {"id": len(truth["annotations"]) + 1, "image_id": number}
            area = int(coco_mask.area(track["segmentation"]))
            truth["annotations"].append({**track, **known, "iscrowd": 0, "area": area})
        found += [
            {"image_id": number, **{k: v for k, v in track.items() if k != "segmentations"}}
            for track in clip["found"]
        ]
    if not found:
        return dict.fromkeys(("AP", "AP50", "AP75", "AR"), 0.0)
    truth["categories"] = [{"id": label} for label in range(1, num_classes)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table of its own
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.params.maxDets = [1, 10, 100]
        # A track has the size of all its frames, which COCO's three sizes say nothing of.
        evaluation.params.areaRng = [[0, 1e15]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # (IoU, recall, class)
    recall = evaluation.eval["recall"][..., 0, 1]  # (IoU, class)
    known = precision[0, 0] > -1
    return {
        "AP": 100 * float(precision[..., known].mean()),
        "AP50": 100 * float(precision[0][:, known].mean()),
        "AP75": 100 * float(precision[5][:, known].mean()),
        "AR": 100 * float(recall[:, known].mean()),
    }
