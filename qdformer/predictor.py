"""Frames and sound in, label maps out: what sounds in a video, and where, while it is read."""

import copy
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor

# Registers the models.
import qdformer.modeling.meta_arch.qdformer  # noqa: F401
import qdformer.modeling.meta_arch.time_domain  # noqa: F401
from qdformer.audio.log_mel import mono_samples, required_samples
from qdformer.checkpoint.checkpointer import AVSCheckpointer
from qdformer.checkpoint.hub import PREFIX
from qdformer.checkpoint.metadata import read_metadata, run_metadata
from qdformer.config.loading import override
from qdformer.config.validation import check_device
from qdformer.data.dataset_mapper import build_mapper
from qdformer.errors import InputError
from qdformer.io.audio_file import SAMPLE_RATE
from qdformer.layers.mask_sampling import masks_at_size
from qdformer.modeling.inference import Thresholds
from qdformer.modeling.inference_fusion import fuse_for_inference
from qdformer.modeling.windows import windows
from qdformer.video.reader import Picture, VideoFile

SHORTEST, LONGEST = 0.02, 60.0
"""Seconds that a span may have."""


@dataclasses.dataclass(frozen=True)
class SegmentedFrame:
    """What sounds in one span of a video, and where.

    Attributes:
        begin, end: seconds from the first picture on, the span that this stands for.
        image: (H, W, 3) uint8 RGB, the picture that is shown in the middle of the span.
        label_map: (H, W) uint8, the class of each pixel: 0 for background, otherwise its index in
            the predictor's ``metadata.stuff_classes``.
        instances: Detectron2's, one for each class in ``label_map``: ``pred_masks`` (M, H, W) bool,
            ``pred_classes`` (M,) from 0 on without background, ``scores`` (M,) in [0, 1].
        token_masks: (N, h, w) in [0, 1], the mask of each token at the network's resolution.
        token_classes: (N,), the likeliest class of each token, counted as in ``label_map``.
        token_scores: (N,) in [0, 1], its probability.
        local_codes: (N,) the codewords of this span's tokens; None without a codebook.
        global_codes: (N,) those of the window that it was segmented in; None without a codebook.
        log_mel: (96, 64) float32, what the network heard.
    """

    begin: float
    end: float
    image: np.ndarray
    label_map: np.ndarray
    instances: Instances
    token_masks: Tensor
    token_classes: Tensor
    token_scores: Tensor
    local_codes: Tensor | None
    global_codes: Tensor | None
    log_mel: np.ndarray
    _network_size: tuple[int, int]

    def masks_of(self, tokens: Sequence[int]) -> Tensor:
        """(n, H, W) in [0, 1], the masks of some tokens at the size of ``image``."""
        masks = self.token_masks[list(tokens)]
        return masks_at_size(masks, self._network_size, self.label_map.shape)

    def label_map_of(self, tokens: Sequence[int], threshold: float = 0.5) -> np.ndarray:
        """(H, W) uint8, ``label_map`` where the mask of one of the tokens is above a threshold."""
        seen = (self.masks_of(tokens) > threshold).any(0)
        return self.label_map * seen.numpy()


class AudioVisualPredictor:
    """Segments the sounding objects of videos with a trained model.

    Attributes:
        metadata: ``stuff_classes``, background first, and ``stuff_colors``.
        cfg: of the model.
    """

    def __init__(
        self,
        trained: str | os.PathLike | CfgNode,
        overrides: Sequence[str] = (),
        device: str | None = None,
    ):
        """
        Args:
            trained: a checkpoint of this project, which carries its config and its classes
                (``hf://owner/name`` fetches one from the Hugging Face Hub), or a config: then
                ``MODEL.WEIGHTS`` names the weights and ``DATASETS.TEST`` a registered data set with
                the classes.
            overrides: keys and values of the config in turn.
            device: "cpu", "cuda", ...; by default the config's, or the CPU where that is not there.

        Raises:
            InputError: the file or a setting cannot be used.
        """
        self.cfg, self.metadata = model_config(trained, overrides, device)
        described = None
        if isinstance(trained, CfgNode):
            described = run_metadata(trained, trained.DATASETS.TEST[0])
        self.model = build_model(self.cfg).eval()
        checkpointer = AVSCheckpointer(self.model, complete=True, description=described)
        checkpointer.load(self.cfg.MODEL.WEIGHTS)
        if self.cfg.MODEL.QDFORMER.FAST_INFERENCE:
            fuse_for_inference(self.model)

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> "AudioVisualPredictor":
        """A model of the Hugging Face Hub, ``owner/name``; ``options`` as for the constructor."""
        return cls(f"{PREFIX}{name}", **options)

    def with_thresholds(self, thresholds: Thresholds) -> "AudioVisualPredictor":
        """The same predictor with other thresholds; the network is shared."""
        other = copy.copy(self)
        other.model = copy.copy(self.model)
        other.model.thresholds = thresholds
        other.cfg = self.cfg.clone()
        other.cfg.defrost()
        other.cfg.MODEL.QDFORMER.MASK_THRESHOLD = float(thresholds.mask)
        other.cfg.MODEL.QDFORMER.CLASS_THRESHOLD = float(thresholds.classes)
        return other

    def __call__(
        self,
        video: str | os.PathLike | BinaryIO | VideoFile,
        every: float = 1.0,
        waveform: np.ndarray | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Iterator[SegmentedFrame]:
        """Segment a video while it is read, in memory that does not grow with its length.

        Args:
            video: a path, a file object that can seek, or an opened video.
            every: seconds between segmented frames, ``SHORTEST`` to ``LONGEST``. Models that were
                trained on AVSBench know one frame a second.
            waveform: (L,) mono, floats with full scale at 1 or integers, heard in place of the
                video's own sound.
            sample_rate: samples of ``waveform`` a second, Hz.

        Yields:
            A result for each span of ``every`` seconds, in order.

        Raises:
            InputError: the video cannot be used.
        """
        video = video if isinstance(video, VideoFile) else VideoFile(video)
        sound = video.sound() if waveform is None else _Waveform(waveform, sample_rate)
        return self._segment(video.sampled(checked_span(every)), sound, every)

    def segment_frames(
        self,
        frames: Iterable[np.ndarray],
        waveform: np.ndarray,
        every: float = 1.0,
        sample_rate: int = SAMPLE_RATE,
    ) -> Iterator[SegmentedFrame]:
        """Segment frames that no file holds; see :meth:`__call__`.

        Args:
            frames: (H, W, 3) uint8 RGB, all of one size, ``every`` seconds apart; the first stands
                for the span that begins with the sound.
            waveform: (L,) mono, floats with full scale at 1 or integers.
            every: seconds.
            sample_rate: samples of ``waveform`` a second, Hz.

        Raises:
            InputError: a frame or the sound is of another kind, or the sound lasts more than twice
                as long as the frames, where their number is known: it has another rate then.
        """
        sound, every = _Waveform(waveform, sample_rate), checked_span(every)
        seconds = len(sound.samples) / SAMPLE_RATE
        if isinstance(frames, Sized) and seconds > 2 * len(frames) * every + 1:
            raise InputError(
                f"the sound lasts {seconds:g} s at {sample_rate} Hz, and {len(frames)} frames "
                f"{len(frames) * every:g} s; give its own sample_rate, or the part that belongs to "
                "the frames"
            )
        return self._segment(_pictures(frames), sound, every)

    def _segment(
        self, pictures: Iterable[Picture], sound: "Sound", every: float
    ) -> Iterator[SegmentedFrame]:
        for window in windows_of(pictures, sound, every, self.cfg):
            with torch.no_grad():
                (result,) = self.model([window.clip])
            result = {
                key: None if values is None else values.cpu() for key, values in result.items()
            }
            for index in range(len(window.images))[window.kept]:
                number = window.first + index
                yield _segmented_frame(
                    {key: values if values is None else values[index]
                     for key, values in result.items()},
                    image=window.images[index],
                    span=(number * every, (number + 1) * every),
                    log_mel=window.clip["audio"][index, 0].numpy(),
                    network_size=tuple(window.clip["image"].shape[-2:]),
                )  # fmt: skip


def model_config(
    trained: str | os.PathLike | CfgNode, overrides: Sequence[str] = (), device: str | None = None
) -> tuple[CfgNode, Metadata]:
    """The config and the classes of a trained model; see :class:`AudioVisualPredictor`."""
    if isinstance(trained, CfgNode):
        cfg, metadata = trained.clone(), MetadataCatalog.get(trained.DATASETS.TEST[0])
    else:
        cfg, metadata = read_metadata(os.fspath(trained))
    cfg.defrost()
    override(cfg, list(overrides))
    present = torch.cuda.is_available() or not cfg.MODEL.DEVICE.startswith("cuda")
    cfg.MODEL.DEVICE = device or (cfg.MODEL.DEVICE if present else "cpu")
    check_device(cfg.MODEL.DEVICE)
    return cfg, metadata


class Sound(Protocol):
    """What is heard with pictures, such as :class:`qdformer.video.audio_track.SoundTrack`."""

    def read(self, start: int, count: int) -> np.ndarray:
        """(count,) mono samples at 16 kHz from sample ``start`` on, zero where there is nothing."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Frames that go through the network together.

    Attributes:
        first: number of the first of them.
        images: (H, W, 3) uint8 RGB each.
        clip: what the network takes of them and of their sound.
        kept: those that the window answers for; over all windows each frame once.
    """

    first: int
    images: list[np.ndarray]
    clip: dict[str, Any]
    kept: slice


def windows_of(
    pictures: Iterable[Picture], sound: Sound, every: float, cfg: CfgNode
) -> Iterator[Window]:
    """Cut a video into what the network takes, while it is read.

    Args:
        pictures: one for each span.
        sound: that belongs to them.
        every: seconds of a span.
        cfg: of the model.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.AUDIO_HOP = every
    mapper = build_mapper(cfg, False)
    taken = (
        (number, picture.image, mapper.augment([picture.image])[0])
        for number, picture in enumerate(pictures)
    )
    for seen, kept in windows(taken, cfg.TEST.WINDOW, cfg.TEST.WINDOW_OVERLAP):
        # Sound is heard for the second around the middle of a span.
        first, count = seen[0][0], required_samples(len(seen), every)
        waveform = sound.read(round((first * every + (every - 1) / 2) * SAMPLE_RATE), count)
        clip = {
            "image": torch.cat([image for _, _, image in seen]),
            "height": seen[0][1].shape[0],
            "width": seen[0][1].shape[1],
            **mapper.audio_features(waveform, len(seen)),
        }
        yield Window(first, [image for _, image, _ in seen], clip, kept)


class _Waveform:
    """A sound that is at hand, read as :class:`qdformer.video.audio_track.SoundTrack` is."""

    def __init__(self, samples: np.ndarray, sample_rate: int):
        self.samples = mono_samples(samples, sample_rate)

    def read(self, start: int, count: int) -> np.ndarray:
        """See :class:`Sound`."""
        piece = self.samples[max(start, 0) : max(start + count, 0)]
        before = min(max(-start, 0), count)
        return np.pad(piece, (before, count - before - len(piece)))


def _pictures(frames: Iterable[np.ndarray]) -> Iterator[Picture]:
    shape = None
    for number, frame in enumerate(frames):
        frame = np.asarray(frame)
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.shape != shape or shape[2:] != (3,) or not frame.size:
            raise InputError(
                f"frame {number} is {frame.dtype} of shape {frame.shape}; give (H, W, 3) uint8 "
                "RGB, all of one size"
            )
        yield Picture(frame, number, float(number))


def checked_span(every: float) -> float:
    """The seconds of a span, if they are possible.

    Raises:
        InputError: they are not within ``SHORTEST`` to ``LONGEST``.
    """
    if not SHORTEST <= every <= LONGEST:
        raise InputError(
            f"{every} seconds between segmented frames were asked for; {SHORTEST} to {LONGEST} are "
            "possible"
        )
    return every


def _segmented_frame(
    result: dict[str, Any],
    *,
    image: np.ndarray,
    span: tuple[float, float],
    log_mel: np.ndarray,
    network_size: tuple[int, int],
) -> SegmentedFrame:
    label_map = result["sem_seg"]
    labels = label_map.unique()
    labels = labels[labels > 0].long()
    instances = Instances(
        tuple(label_map.shape),
        pred_masks=label_map == labels[:, None, None],
        pred_classes=labels - 1,
        scores=result["class_scores"][labels - 1],
    )
    return SegmentedFrame(
        begin=span[0],
        end=span[1],
        image=image,
        label_map=label_map.numpy(),
        instances=instances,
        token_masks=result["masks"],
        token_classes=result["classes"],
        token_scores=result["scores"],
        local_codes=result["local_codes"],
        global_codes=result["global_codes"],
        log_mel=log_mel,
        _network_size=network_size,
    )
