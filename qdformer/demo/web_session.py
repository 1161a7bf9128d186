"""What the web page does with one visitor's video: check, hear, segment, draw."""

import dataclasses
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Instances

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.audio.separation import nmf
from qdformer.demo.annotate import AnnotateOptions, overlaid
from qdformer.demo.history import History
from qdformer.demo.result_folder import ResultFolder
from qdformer.errors import InputError
from qdformer.modeling.inference import Thresholds
from qdformer.predictor import AudioVisualPredictor, SegmentedFrame
from qdformer.synthetic.noise import draw_noise
from qdformer.video.reader import Picture, VideoFile
from qdformer.video.writer import write_annotated_video

MAX_SECONDS = 60
MAX_PIXELS = 1920 * 1080
MAX_RATE = 60  # frames per second

FASTEST, SLOWEST = 0.2, 5.0
"""Seconds between segmented frames that a visitor may choose."""

Progress = Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class SoundChange:
    """How a video's sound is changed before it is heard.

    Attributes:
        muted: sources, of those that :meth:`WebSession.separate` gave last, that are left out.
        noise: a key of :data:`~qdformer.synthetic.noise.SYNTHESIZED` that is added; "" for none.
        snr: energy of the rest over that of the noise, dB.
    """

    muted: tuple[int, ...] = ()
    noise: str = ""
    snr: float = 0.0


@dataclasses.dataclass(frozen=True)
class View:
    """How a visitor wants a video segmented.

    Attributes:
        every: seconds between segmented frames, ``FASTEST`` to ``SLOWEST``.
        thresholds: what counts as confident; None for the model's own.
    """

    every: float = 1.0
    thresholds: Thresholds | None = None

    def __post_init__(self):
        if not FASTEST <= self.every <= SLOWEST:
            raise InputError(
                f"Every {self.every} seconds were asked for; {FASTEST} to {SLOWEST} are possible"
            )


@dataclasses.dataclass(frozen=True)
class ClassFound:
    """A class that sounds in a video.

    Attributes:
        name: of the class.
        color: (R, G, B), 0 to 255.
        seconds: that it sounds and is seen.
        score: 0 to 1, the mean over these seconds.
        share: 0 to 1, of the picture, the mean over these seconds.
    """

    name: str
    color: tuple[int, int, int]
    seconds: float
    score: float
    share: float


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found in a video.

    Attributes:
        overlay: an mp4 file, which lasts until the next result.
        files: a zip of the pictures, label maps, annotations and time line of all tokens, which
            lasts as long.
        time_line: (h, w, 3) uint8 RGB.
        classes: the longest sounding first.
    """

    overlay: Path
    files: Path
    time_line: np.ndarray
    classes: list[ClassFound]


class WebSession:
    """One video, the sources of its sound and what was found in it last.

    Attributes:
        video: opened.
        seconds: it lasts.
        closing: once it is set, what goes on ends, and nothing is done any more.
    """

    def __init__(self, path: str, predictor: AudioVisualPredictor):
        """
        Args:
            path: of the video, which stays there.
            predictor: with the model.

        Raises:
            InputError: the file is no video, too long, too large or too fast.
        """
        self.video = VideoFile(path)
        self.seconds = _checked_length(self.video)
        self.closing = threading.Event()
        self._given = self._predictor = predictor
        self._view = View()
        self._folder = tempfile.TemporaryDirectory()
        self._sources = np.zeros((0, 0), np.float32)
        self._frames: list[SegmentedFrame] = []
        self._waveform: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The file's, without its folder."""
        return Path(self.video.name).name

    @property
    def num_tokens(self) -> int:
        """N of the result; 0 before there is one."""
        return len(self._frames[0].token_scores) if self._frames else 0

    def separate(self, count: int) -> np.ndarray:
        """Take the video's own sound apart.

        Args:
            count: S; 1 for the sound as it is.

        Returns:
            (S, L) float32 mono at 16 kHz, the loudest first.
        """
        self._sources = nmf(self._own_sound(), count)
        return self._sources

    def segment(self, change: SoundChange, progress: Progress, view: View = View()) -> Result:  # noqa: B008
        """Segment the video with its sound or with a changed one.

        Args:
            change: of the sound, for this result and what is made of it.
            progress: called with the share that is done, 0 to 1.
            view: how.

        Raises:
            InputError: the video cannot be used any further, or the change is none.
        """
        self._waveform = self._changed_sound(change)
        self._frames, self._view, self._predictor = [], view, self._given
        if view.thresholds is not None:
            self._predictor = self._given.with_thresholds(view.thresholds)
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            files = ResultFolder(Path(folder), self.video, self._predictor.metadata, view.every)
            result = self._draw(self._segmented(files), progress)
            files.finish(result.time_line)
            files.zipped(result.files)
        return result

    def show(self, tokens: Sequence[int], progress: Progress) -> Result:
        """Draw the last result anew with the masks of some tokens alone; no network runs.

        Args:
            tokens: from 0 on.
            progress: as for :meth:`segment`.

        Raises:
            InputError: there is no result yet, or the video cannot be used any further.
        """
        if not self._frames:
            raise InputError("There is no result to choose tokens of; press Segment first")
        return self._draw((self._masked(frame, tokens) for frame in self._frames), progress)

    def likeliest_classes(self) -> list[str]:
        """For each token of the last result, the class that it names the most often; "" for none.

        Only the seconds count in which the token is sure enough to be drawn.
        """
        names = self._predictor.metadata.stuff_classes
        votes = np.zeros((self.num_tokens, len(names) + 1), int)
        for frame in self._frames:
            for token in self._confident(frame):
                votes[token, int(frame.token_classes[token])] += 1
        return [names[int(row.argmax())] if row.any() else "" for row in votes]

    def _own_sound(self) -> np.ndarray:
        return self.video.sound().read(0, round(self.seconds * SAMPLE_RATE))

    def _changed_sound(self, change: SoundChange) -> np.ndarray | None:
        """(L,), None for the sound as it is."""
        muted = [index for index in change.muted if index < len(self._sources)]
        if not muted and not change.noise:
            return None
        waveform = self._own_sound()
        if muted:
            waveform = np.delete(self._sources, muted, axis=0).sum(axis=0)
        if change.noise:
            (noise,) = draw_noise(["video"], change.snr, change.noise)
            waveform = noise.add_to(waveform)
        # What is louder would be cut in the file, and so heard otherwise than it was segmented.
        return (waveform / max(1.0, np.abs(waveform).max(initial=0))).astype(np.float32)

    def _segmented(self, files: ResultFolder) -> Iterator[SegmentedFrame]:
        for frame in self._predictor(self.video, self._view.every, self._waveform):
            files.add(frame)
            # Pictures and masks of every class would be most of what is kept.
            found = frame.instances
            found = Instances(
                found.image_size, pred_classes=found.pred_classes, scores=found.scores
            )
            kept = dataclasses.replace(frame, image=np.zeros((0, 0, 3), np.uint8), instances=found)
            self._frames.append(kept)
            yield kept

    def _confident(self, frame: SegmentedFrame) -> list[int]:
        """Tokens that took part in the label map."""
        threshold = self._predictor.cfg.MODEL.QDFORMER.CLASS_THRESHOLD
        return (frame.token_scores >= threshold).nonzero().flatten().tolist()

    def _masked(self, frame: SegmentedFrame, tokens: Sequence[int]) -> SegmentedFrame:
        confident = self._confident(frame)
        taken = [token for token in confident if token in tokens]
        if taken == confident:
            return frame
        threshold = self._predictor.cfg.MODEL.QDFORMER.MASK_THRESHOLD
        label_map = frame.label_map_of(taken, threshold)
        seen = torch.isin(frame.instances.pred_classes + 1, torch.from_numpy(np.unique(label_map)))
        return dataclasses.replace(frame, label_map=label_map, instances=frame.instances[seen])

    def _draw(self, frames: Iterable[SegmentedFrame], progress: Progress) -> Result:
        metadata = self._predictor.metadata
        history, areas = History(metadata, self._view.every), []

        def recorded() -> Iterator[SegmentedFrame]:
            for frame in frames:
                history.add(frame)
                counts = np.bincount(frame.label_map.ravel(), minlength=len(metadata.stuff_classes))
                areas.append(counts / frame.label_map.size)
                yield frame

        def counted(pictures: Iterable[Picture]) -> Iterator[Picture]:
            for picture in pictures:
                yield picture
                if self.closing.is_set():
                    raise InputError(f"{self.name}: is no longer asked for; drop it in again")
                progress(min(picture.time / self.seconds, 1.0))

        options = AnnotateOptions(every=self._view.every)
        pictures = overlaid(_bounded(self.video), recorded(), metadata, options)
        overlay = Path(self._folder.name) / "overlay.mp4"
        write_annotated_video(overlay, self.video, counted(pictures), self._waveform)
        classes = _classes_found(history, np.stack(areas))
        files = overlay.with_name(f"{Path(self.name).stem}.zip")
        return Result(overlay, files, history.draw(self.name), classes)


def _classes_found(history: History, areas: np.ndarray) -> list[ClassFound]:
    metadata, scores = history.metadata, history.scores
    found = []
    for label in range(1, areas.shape[1]):
        seen = areas[:, label] > 0
        if seen.any():
            found.append(
                ClassFound(
                    name=metadata.stuff_classes[label],
                    color=tuple(metadata.stuff_colors[label]),
                    seconds=float(seen.sum() * history.every),
                    score=float(scores[seen, label].mean()),
                    share=float(areas[seen, label].mean()),
                )
            )
    return sorted(found, key=lambda row: row.seconds, reverse=True)


def _checked_length(video: VideoFile) -> float:
    """Seconds of a video that keeps to the limits, as far as its header tells."""
    if video.height * video.width > MAX_PIXELS:
        raise InputError(
            f"{video.name}: has pictures of {video.width} x {video.height} pixels, and this page "
            "takes up to 1920 x 1080; make it smaller"
        )
    if video.rate > MAX_RATE:
        raise InputError(
            f"{video.name}: has {float(video.rate):.0f} frames per second, and this page takes up "
            f"to {MAX_RATE}; bring it to fewer"
        )
    # Some containers do not say how long they last.
    spans = islice(video.sampled(1.0), MAX_SECONDS + 1)
    seconds = video.duration or float(sum(1 for _ in spans))
    if seconds > MAX_SECONDS:
        raise _too_long(video)
    return seconds


def _bounded(video: VideoFile) -> Iterator[Picture]:
    """The pictures of a video, whose header may have told less than there are."""
    for number, picture in enumerate(video.pictures()):
        end = picture.time + video.shown_for(picture.duration)
        if end > MAX_SECONDS + 1 or number > MAX_SECONDS * MAX_RATE:
            raise _too_long(video)
        yield picture


def _too_long(video: VideoFile) -> InputError:
    lasts = f"lasts {video.duration:.0f} s" if video.duration else "lasts longer"
    return InputError(
        f"{video.name}: {lasts}, and this page takes up to {MAX_SECONDS} s; cut it, or use "
        "projects/QDFormer/demo.py, which takes any length"
    )
