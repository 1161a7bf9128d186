"""One video in, a folder with its overlay, label maps, annotations and time line out."""

import dataclasses
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from detectron2.data import Metadata

from qdformer.demo.history import History
from qdformer.demo.preview import Preview
from qdformer.demo.result_folder import ANNOTATIONS, ResultFolder
from qdformer.errors import InputError
from qdformer.predictor import AudioVisualPredictor, SegmentedFrame, checked_span
from qdformer.video.prefetch import prefetched
from qdformer.video.reader import Picture, VideoFile
from qdformer.video.writer import write_annotated_video
from qdformer.visualization.motion import motion
from qdformer.visualization.overlay import Layer

OVERLAY, PREVIEW = "overlay.mp4", "preview.gif"


@dataclasses.dataclass(frozen=True)
class AnnotateOptions:
    """How a video is annotated.

    Attributes:
        every: seconds between segmented frames; refused with an InputError if they are impossible.
        tracked: pictures between them get masks that follow the motion of what they lie on;
            otherwise they hold still for the whole span.
        preview: also draw an animated picture, ``preview.gif``.
    """

    every: float = 1.0
    tracked: bool = False
    preview: bool = False

    def __post_init__(self):
        checked_span(self.every)


def annotate(
    predictor: AudioVisualPredictor,
    video: VideoFile,
    folder: Path,
    options: AnnotateOptions = AnnotateOptions(),  # noqa: B008  (frozen)
    progress: Callable[[float], None] = lambda seconds: None,
) -> History:
    """Segment a video and write what is found; all of it or nothing.

    Args:
        predictor: with the model.
        video: an opened video.
        folder: takes the results; an older one of that name is replaced.
        options: how.
        progress: called with the seconds of the video that are done.

    Returns:
        What was found.

    Raises:
        InputError: the video cannot be used any further, or ``folder`` holds something else.
        OSError: the results cannot be written.
    """
    check_replaceable(folder)
    metadata = predictor.metadata
    history = History(metadata, options.every)
    preview = Preview(metadata, options.every)
    with whole_folder(folder) as partial:
        results = ResultFolder(partial, video, metadata, options.every)

        def recorded() -> Iterator[SegmentedFrame]:
            for frame in predictor(video, options.every):
                results.add(frame)
                history.add(frame)
                if options.preview:
                    preview.add(frame)
                yield frame

        # The network works on the next window while the last one is drawn and encoded.
        with closing(prefetched(recorded(), predictor.cfg.TEST.WINDOW)) as frames:
            pictures = overlaid(video.pictures(), frames, metadata, options)
            write_annotated_video(partial / OVERLAY, video, _counted(pictures, progress))
        results.finish(history.draw(Path(video.name).name))
        if options.preview:
            preview.write(partial / PREVIEW)
    return history


def overlaid(
    pictures: Iterable[Picture],
    frames: Iterator[SegmentedFrame],
    metadata: Metadata,
    options: AnnotateOptions,
) -> Iterator[Picture]:
    """Draw what sounds over every picture of a video.

    Args:
        pictures: of the video, in order.
        frames: its results, in order; they are asked for as the pictures come.
        metadata: of the predictor.
        options: how.

    Yields:
        The pictures, as large and as long as they were.
    """
    frame = next(frames)
    layer = _layer(frame, metadata)
    for picture in pictures:
        while picture.time >= frame.end and (following := next(frames, None)) is not None:
            frame = following
            layer = _layer(frame, metadata)
        if options.tracked and frame.label_map.any():
            shown = layer.moved(motion(frame.image, picture.image))
        else:
            shown = layer
        yield dataclasses.replace(picture, image=shown.over(picture.image))
    # The last picture may be shown for several spans.
    deque(frames, maxlen=0)


def _layer(frame: SegmentedFrame, metadata: Metadata) -> Layer:
    return Layer.draw(frame.label_map, frame.label_map.shape, metadata)


def _counted(pictures: Iterable[Picture], progress: Callable[[float], None]) -> Iterator[Picture]:
    for picture in pictures:
        yield picture
        progress(picture.time)


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that is there and is no result of an earlier call.

    Raises:
        InputError: it is.
    """
    if os.path.lexists(folder) and not (folder / ANNOTATIONS).is_file():
        raise InputError(
            f"{folder}: is there already, and does not hold the results of a video; give another "
            "output folder"
        )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its name, and the place of an older one, when all of it is written.

    Args:
        folder: the name; its parent is made where it is missing.

    Yields:
        Where to write meanwhile.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    prefix = f".{os.getpid()}-"
    partial = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what processes left here that ended in the middle."""
    for partial in parent.glob(".*-*.part"):
        process = partial.name[1:].partition("-")[0]
        if process.isdecimal():
            try:
                os.kill(int(process), 0)  # only asks whether there is one
            except ProcessLookupError:
                shutil.rmtree(partial, ignore_errors=True)
            except OSError:  # somebody else's
                pass


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
