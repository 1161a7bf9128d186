"""From the record of a clip to what the network takes."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import filterfalse, groupby
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances
from fvcore.common.registry import Registry
from torch import Tensor

from qdformer.audio.log_mel import (
    EXAMPLE_HOP,
    SILENT_LOG_MEL,
    clip_log_mel,
    clip_waveform,
    log_mel_examples,
)
from qdformer.audio.separation import build_separator
from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.io.image import IGNORE_LABEL, LabelFormat, read_image, read_label_map

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = """
Mappers for ``INPUT.MAPPER``: ``mapper(cfg, is_train)`` returns a function from a clip's record to
what the network takes, see :meth:`AVSDatasetMapper.__call__`. Prediction on videos needs
:meth:`AVSDatasetMapper.augment` and :meth:`AVSDatasetMapper.audio_features`, too, which subclasses
have.
"""


def build_mapper(cfg, is_train: bool) -> Any:
    """The mapper that ``INPUT.MAPPER`` names."""
    return MAPPER_REGISTRY.get(cfg.INPUT.MAPPER)(cfg, is_train)


@MAPPER_REGISTRY.register()
class AVSDatasetMapper:
    """Reads a clip's frames, sound and labels and augments them, all frames alike.

    One mapper serves every data set: the record says how its labels are written, and an object is a
    class that sounds somewhere in the clip, with its pixels in every frame. Where annotations tell
    objects of a class apart, each of their tracks is one.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        palette: np.ndarray | None,
        num_classes: int,
        num_frames: int,
        audio_hop: float = EXAMPLE_HOP,
        audio_gain: float = 0.0,
        separate: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        """
        Args:
            is_train: read labels, cut clips to ``num_frames``, augment the sound.
            augmentations: of the frames; one draw a clip.
            image_format: "RGB" or "BGR", the order that the backbone's weights expect.
            palette: (num, 3) RGB colors of color-coded label maps.
            num_classes: labels run from 0 (background) to ``num_classes``; 255, which evaluation
                ignores, belongs to no object and so is background in training.
            num_frames: the most frames T of a training clip; longer ones are cut at random.
            audio_hop: seconds between log-mel examples.
            audio_gain: the sound is made louder or softer by up to this many dB in training.
            separate: takes a waveform (L,) apart, to (S, L); None leaves it together.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.palette, self.num_classes = palette, num_classes
        self.num_frames = num_frames
        self.audio_hop, self.audio_gain = audio_hop, audio_gain
        self.separate = separate

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict[str, Any]:
        """Translate a config to the arguments of the constructor."""
        size = _ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN if is_train else cfg.INPUT.MIN_SIZE_TEST,
            cfg.INPUT.MAX_SIZE_TRAIN if is_train else cfg.INPUT.MAX_SIZE_TEST,
            cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING if is_train else "choice",
        )
        augmentations: list[T.Augmentation] = [size]
        if is_train and cfg.INPUT.RANDOM_FLIP == "horizontal":
            augmentations.append(T.RandomFlip())
        if is_train and cfg.INPUT.COLOR_JITTER:
            low, high = 1 - cfg.INPUT.COLOR_JITTER, 1 + cfg.INPUT.COLOR_JITTER
            augmentations += [
                T.RandomBrightness(low, high),
                T.RandomContrast(low, high),
            ]
        names = cfg.DATASETS.TRAIN if is_train else cfg.DATASETS.TEST
        metadata = MetadataCatalog.get(names[0]) if names else Metadata()
        known = len(metadata.get("stuff_classes", ())) - 1
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "palette": metadata.get("stuff_colors"),
            "num_classes": cfg.MODEL.QDFORMER.NUM_CLASSES or max(known, 0),
            "num_frames": cfg.INPUT.NUM_FRAMES,
            "audio_hop": cfg.INPUT.AUDIO_HOP,
            "audio_gain": cfg.INPUT.AUDIO_GAIN,
            "separate": None if is_train else build_separator(cfg),
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            record: a clip, see :func:`qdformer.data.datasets.avsbench.load_avs`; ``noise``, a
                :class:`qdformer.synthetic.noise.BackgroundNoise`, is heard behind its sound.

        Returns:
            The record's keys and ``image`` (T, 3, H, W) uint8, ``audio`` (T, 1, 96, 64) float32,
            with a separator ``separated_audio`` (S, T, 1, 96, 64) float32 and, in training,
            ``instances``, T Detectron2 ``Instances`` that list the clip's M objects in one order
            (``gt_classes`` from 0, ``gt_masks`` with an empty mask where the object is silent), and
            ``annotated`` (T,) bool.

        Raises:
            InputError: a file cannot be read, or does not fit the others.
        """
        clip = copy.deepcopy(record)
        num_frames, chosen = len(clip["file_names"]), slice(None)
        if self.is_train:
            chosen = self._choose_frames(clip["sem_seg_file_names"])
            for key in ("file_names", "sem_seg_file_names"):
                clip[key] = clip[key][chosen]
        sound = self._read_sound(clip, num_frames, chosen)
        if self.is_train:
            sound["audio"] = self._change_gain(sound["audio"])
        clip["image"], size, transforms = self.augment(_read_frames(clip["file_names"]))
        clip.update(sound)
        if self.is_train:
            clip.update(self._read_labels(clip, size, transforms))
        return clip

    def augment(
        self, frames: Iterable[np.ndarray]
    ) -> tuple[Tensor, tuple[int, int], T.TransformList]:
        """Bring the frames of a clip to what the network takes, all with one draw.

        Args:
            frames: T of (H, W, 3) uint8 RGB. They are taken one after the other, so that large ones
                that are made smaller never lie in memory together.

        Returns:
            (T, 3, h, w) uint8 in the order of ``image_format``, (H, W), and what was done.
        """
        frames = iter(frames)
        first = next(frames)
        drawn = T.AugInput(first)
        transforms = _simplify(self.augmentations(drawn))
        images = [drawn.image, *map(transforms.apply_image, frames)]
        order = slice(None, None, -1 if self.image_format == "BGR" else 1)
        planes = np.stack([cv2.split(image)[order] for image in images])
        return torch.from_numpy(planes), first.shape[:2], transforms

    def audio_features(
        self, waveform: np.ndarray, num_frames: int, chosen: slice = slice(None)
    ) -> dict[str, Tensor]:
        """What the network takes of a sound: ``audio`` and, with a separator, ``separated_audio``.

        Args:
            waveform: (L,) mono at 16 kHz, from the beginning of the first frame's example on.
            num_frames: T.
            chosen: the frames whose examples are wanted, at least one; by default all.
        """
        hop = self.audio_hop
        sound = {"audio": log_mel_examples(waveform, num_frames, hop, chosen)}
        if self.separate is not None:
            examples = [
                log_mel_examples(source, num_frames, hop, chosen)
                for source in self.separate(waveform)
            ]
            sound["separated_audio"] = torch.stack(examples)
        return sound

    def _choose_frames(self, sem_seg_file_names: Sequence[str | None]) -> slice:
        """A run of at most ``num_frames`` frames, with an annotated one if the clip has any."""
        total = len(sem_seg_file_names)
        starts = np.arange(max(total - self.num_frames, 0) + 1)
        annotated = np.array([name is not None for name in sem_seg_file_names])
        useful = [start for start in starts if annotated[start : start + self.num_frames].any()]
        start = int(np.random.choice(useful if useful else starts))
        return slice(start, start + self.num_frames)

    def _read_sound(
        self, clip: dict[str, Any], num_frames: int, chosen: slice
    ) -> dict[str, Tensor]:
        path, noise, hop = clip["audio_file_name"], clip.get("noise"), self.audio_hop
        if noise is None and self.separate is None:
            return {"audio": clip_log_mel(path, num_frames, hop, chosen)}
        # Of the whole clip, so that what is heard in a frame does not depend on the chosen ones.
        waveform = clip_waveform(path, num_frames, hop)
        if noise is not None:
            waveform = noise.add_to(waveform)
        return self.audio_features(waveform, num_frames, chosen)

    def _change_gain(self, log_mel: Tensor) -> Tensor:
        """Scale the magnitudes behind log-mel values, which are ln(magnitude + 0.01)."""
        if not self.audio_gain:
            return log_mel
        factor = 10 ** (np.random.uniform(-self.audio_gain, self.audio_gain) / 20)
        # ln((exp(x) - 0.01) factor + 0.01), without the exponential of large values.
        log_mel = log_mel.clamp(min=SILENT_LOG_MEL)
        return log_mel + (factor + 0.01 * (1 - factor) * (-log_mel).exp()).log()

    def _read_labels(self, clip: dict[str, Any], size, transforms) -> dict[str, Any]:
        names = clip["sem_seg_file_names"]
        height, width = clip["image"].shape[-2:]
        pixels = np.zeros((len(names), height, width), dtype=np.uint8)
        numbers: dict[tuple[int, int], int] = {}  # by label and track
        for t, name in enumerate(names):
            if name is not None:
                objects = self._read_objects(name, clip["label_format"], numbers)
                if objects.shape != size:
                    raise InputError(
                        f"{name}: {objects.shape[1]} x {objects.shape[0]} pixels, but its frame "
                        f"has {size[1]} x {size[0]}"
                    )
                pixels[t] = transforms.apply_segmentation(objects)
        seen = np.bincount(pixels.reshape(-1), minlength=len(numbers) + 1)
        present = sorted(key for key, number in numbers.items() if seen[number])
        classes = torch.tensor([label - 1 for label, _ in present], dtype=torch.int64)
        order = np.array([numbers[key] for key in present], np.uint8)
        masks = torch.from_numpy(pixels[:, None] == order[:, None, None])
        instances = [
            Instances((height, width), gt_classes=classes, gt_masks=BitMasks(frame))
            for frame in masks
        ]
        return {
            "instances": instances,
            "annotated": torch.tensor([name is not None for name in names]),
        }

    def _read_objects(
        self, name: str | FrameAnnotation, label_format: LabelFormat, numbers: dict
    ) -> np.ndarray:
        """(H, W) uint8, which object of the clip each pixel shows, 0 for background.

        Args:
            name: of the mask.
            label_format: of the mask.
            numbers: of the clip's objects by label and track, -1 where a mask tells classes only;
                new ones are added.
        """
        if isinstance(name, FrameAnnotation) and name.has_tracks:
            self._check_label(name, max(item.label for item in name.objects))
            return name.object_map(numbers)
        label_map = read_label_map(name, label_format, self.palette)
        table = np.zeros(256, np.uint8)
        for label in np.flatnonzero(np.bincount(label_map.reshape(-1), minlength=256)).tolist():
            if label in (0, IGNORE_LABEL):
                continue
            self._check_label(name, label)
            table[label] = numbers.setdefault((label, -1), len(numbers) + 1)
        return table[label_map]

    def _check_label(self, name: str | FrameAnnotation, label: int) -> None:
        if label > self.num_classes:
            raise InputError(
                f"{name}: label {label}, but the data set has classes 0 to {self.num_classes}"
            )


def _read_frames(file_names: Sequence[str]) -> Iterator[np.ndarray]:
    """The frames of a clip, which agree in size."""
    size = None
    for name in file_names:
        frame = read_image(name)
        height, width = frame.shape[:2]
        size = size or (height, width)
        if (height, width) != size:
            raise InputError(
                f"{name}: {width} x {height} pixels, but the clip's first frame has "
                f"{size[1]} x {size[0]}; all must agree"
            )
        yield frame


class _ResizeShortestEdge(T.ResizeShortestEdge):
    """Leaves a row of very wide frames, or a column of very high ones."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        resize = super().get_transform(image)
        if isinstance(resize, T.ResizeTransform):
            resize.new_h, resize.new_w = max(resize.new_h, 1), max(resize.new_w, 1)
        return resize


class _ColorTable(T.Transform):
    """Gives every pixel value the value that a table (256,) uint8 has for it."""

    def __init__(self, table: np.ndarray):
        super().__init__()
        self.table = table

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.LUT(img, self.table)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


def _simplify(transforms: T.TransformList) -> T.TransformList:
    """Transforms that give the same images in less time.

    A resize to the size that is there is left out, and one table takes the place of changes that
    look at each value alone: Detectron2 computes brightness and contrast for every pixel.
    """
    simple = []
    for of_values, group in groupby(filterfalse(_keeps_size, transforms.transforms), _is_of_values):
        part = T.TransformList(list(group))
        values = np.arange(256, dtype=np.uint8)
        simple.append(_ColorTable(part.apply_image(values)) if of_values else part)
    return T.TransformList(simple)


def _keeps_size(transform: T.Transform) -> bool:
    return isinstance(transform, T.ResizeTransform) and (
        (transform.h, transform.w) == (transform.new_h, transform.new_w)
    )


def _is_of_values(transform: T.Transform) -> bool:
    return isinstance(transform, T.BlendTransform) and np.ndim(transform.src_image) == 0
