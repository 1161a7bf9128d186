"""Pictures and sound into one mp4 file that common players and browsers show."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from torch import Tensor

from qdformer.audio.log_mel import SAMPLE_RATE, mono_samples
from qdformer.errors import InputError
from qdformer.io.atomic_write import atomic_write
from qdformer.video.audio_packets import Sound, own_sound, waveform_sound
from qdformer.video.reader import Picture, VideoFile

# Frames per second that a file has at least: several players stutter, or show nothing, at 1.
MIN_CONTAINER_RATE = 10

# What the conversion from RGB does; untagged, players take large pictures for BT.709.
_BT_601 = 6

_NO_SOUND = (math.inf, None)


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    waveform: np.ndarray | Tensor | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Write frames, and a sound where there is one, as an mp4 file (h264, yuv420p; AAC, mono).

    The frames are taken one at a time, so that a generator may give more than memory holds. Slow
    frame rates are written at ``MIN_CONTAINER_RATE`` frames per second or a little more by
    repeating each frame a whole number of times; the sound is cut, or continued with silence, to
    the length of the picture. yuv420p wants an even height and width: an odd one gets its last row
    or column twice. The file appears under its name only when it is complete, and an older file
    of that name stays as it is until then.

    Args:
        path: The file to write, ending in ``.mp4``, in a folder that exists.
        frames: (H, W, 3) uint8 RGB, all of one size, each shown for ``1 / fps`` seconds.
        fps: Frames a second, positive.
        waveform: (L,) floats in [-1, 1] (values beyond it are clipped) or integers, see
            :func:`~qdformer.audio.log_mel.mono_samples`; None for no sound.
        sample_rate: Samples a second of ``waveform`` (Hz), one of those that AAC knows.

    Raises:
        InputError: The folder does not exist, the name does not end in ``.mp4``, ``fps`` is not
            positive, there are no frames, or a frame is not (H, W, 3) uint8 of the first's size.
    """
    path = _checked_path(path)
    if not (fps > 0 and math.isfinite(fps)):
        raise InputError(f"{path}: {fps} frames per second given; the rate must be positive.")
    frames = _checked(path, frames)
    with _container(path) as container:
        _encode(container, frames, Fraction(fps).limit_denominator(1001), waveform, sample_rate)


def write_annotated_video(
    path: str | os.PathLike,
    video: VideoFile,
    pictures: Iterable[Picture],
    waveform: np.ndarray | None = None,
) -> None:
    """Write pictures with the times, size, shape of pixels and sound of a video, as an mp4 file.

    The pictures are taken one at a time, and with each as much of the sound as goes with it. The
    last is shown as long as the video says, and there the sound ends as well. As with
    :func:`write_video` odd sizes are made even and the file appears when it is complete.

    Args:
        path: The file to write, ending in ``.mp4``, in a folder that exists.
        video: What the pictures are of.
        pictures: Of the video's size and with its times, ascending; not necessarily all of them.
        waveform: (L,) floats in [-1, 1] or integers at 16 kHz from the first picture on, in place
            of the video's own sound, cut or continued with silence. By default that is copied as it
            is stored or, where browsers would not play it in an mp4 file, encoded as AAC.

    Raises:
        InputError: The folder does not exist, the name does not end in ``.mp4``, there are no
            pictures, or an image is not (H, W, 3) uint8 of the video's size.
    """
    path = _checked_path(path)
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"{path}: there are no pictures to write; give at least one.")
    with _container(path) as container, closing(_sound_of(container, video, waveform)) as sound:
        _encode_like(container, path, video, chain([first], pictures), sound)


def _checked_path(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: videos are written as mp4; give a name that ends in .mp4.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first.")
    return path


@contextmanager
def _container(path: Path) -> Iterator[OutputContainer]:
    with (
        atomic_write(path) as partial,
        # By its whole path: a name like "a:b.mp4" would be an address to FFmpeg.
        av.open(
            str(partial.absolute()), "w", format="mp4", options={"movflags": "faststart"}
        ) as container,
    ):
        yield container


def _checked(path: Path, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, each checked when its turn comes, the first one at once."""

    def check(frame: np.ndarray, index: int, shape: tuple[int, ...]) -> np.ndarray:
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            found = f"{frame.dtype} of shape {frame.shape}"
            raise InputError(f"{path}: frame {index} is {found}; give (H, W, 3) uint8 RGB.")
        if frame.shape != shape:
            sizes = f"{frame.shape[1]}x{frame.shape[0]}, the first {shape[1]}x{shape[0]}"
            raise InputError(f"{path}: frame {index} is {sizes}; give frames of one size.")
        return frame

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write; give at least one.")
    first = check(first, 0, np.shape(first))
    rest = (check(frame, index, first.shape) for index, frame in enumerate(frames, start=1))
    return chain([first], rest)


def _encode(
    container: av.container.OutputContainer,
    frames: Iterator[np.ndarray],
    fps: Fraction,
    waveform: np.ndarray | Tensor | None,
    sample_rate: int,
) -> None:
    """Encode picture and sound side by side: what is written first would wait in memory."""
    first = next(frames)
    repeats = max(1, math.ceil(MIN_CONTAINER_RATE / fps))
    video = _add_pictures(container, *first.shape[:2], rate=fps * repeats, options={"crf": "18"})
    streams = [video]
    if waveform is not None:
        streams.append(container.add_stream("aac", rate=sample_rate, layout="mono"))

    written = 0
    for index, frame in enumerate(chain([first], frames)):
        picture = _even(frame)
        for repeat in range(repeats):
            picture.pts = index * repeats + repeat
            container.mux(video.encode(picture))
        if waveform is not None:
            end = round((index + 1) / fps * sample_rate)
            container.mux(streams[1].encode(_sound(waveform, written, end, sample_rate)))
            written = end
    for stream in streams:
        container.mux(stream.encode(None))


def _add_pictures(
    container: OutputContainer, height: int, width: int, **encoding
) -> av.VideoStream:
    """A stream for pictures that :func:`_even` has made of (height, width) ones."""
    stream = container.add_stream("libx264", **encoding)
    stream.width, stream.height = width + width % 2, height + height % 2
    stream.pix_fmt, stream.codec_context.colorspace = "yuv420p", _BT_601
    return stream


def _even(image: np.ndarray) -> av.VideoFrame:
    """yuv420p wants an even height and width: an odd one gets its last row or column twice."""
    odd = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))
    return av.VideoFrame.from_ndarray(np.pad(image, odd, mode="edge"), format="rgb24")


def _sound(waveform: np.ndarray | Tensor, start: int, end: int, sample_rate: int) -> av.AudioFrame:
    """Samples [start, end), silence where the sound is over."""
    piece = np.clip(mono_samples(waveform[start:end]), -1, 1)
    piece = np.pad(piece, (0, end - start - len(piece)))
    frame = av.AudioFrame.from_ndarray(piece[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
    return frame


def _encode_like(
    container: OutputContainer,
    path: Path,
    video: VideoFile,
    pictures: Iterator[Picture],
    sound: Sound,
) -> None:
    stream = _add_pictures(
        container,
        video.height,
        video.width,
        rate=video.rate,
        time_base=video.time_base,
        options={"crf": "18", "preset": "veryfast"},
    )
    stream.codec_context.sample_aspect_ratio = video.aspect
    # With pictures out of order, an mp4 file cannot say how long the last is shown.
    stream.codec_context.max_b_frames = 0
    stream.codec_context.flags |= Flags.frame_duration
    heard, piece = next(sound, _NO_SOUND)

    for picture, following in pairwise(chain(pictures, [None])):
        shown = video.shown_for(picture.duration)
        ticks = following.pts - picture.pts if following else round(shown / video.time_base)
        frame = _frame(path, video, picture)
        frame.pts, frame.duration, frame.time_base = picture.pts, ticks, video.time_base
        container.mux(stream.encode(frame))
        while heard < float((picture.pts + ticks) * video.time_base):
            _mux(container, piece)
            heard, piece = next(sound, _NO_SOUND)
    for encoder in container.streams:
        if encoder.codec_context.is_encoder:
            container.mux(encoder.encode(None))


def _mux(container: OutputContainer, piece: av.Packet | av.AudioFrame) -> None:
    encoded = isinstance(piece, av.AudioFrame)
    for packet in container.streams.audio[0].encode(piece) if encoded else [piece]:
        with suppress(ValueError):  # what is damaged in the original is left out
            container.mux(packet)


def _frame(path: Path, video: VideoFile, picture: Picture) -> av.VideoFrame:
    image = picture.image
    if image.dtype != np.uint8 or image.shape != (video.height, video.width, 3):
        raise InputError(
            f"{path}: the picture at {picture.time:.2f} s is {image.dtype} of shape {image.shape}; "
            f"give uint8 of shape {(video.height, video.width, 3)}."
        )
    return _even(image)


def _sound_of(container: OutputContainer, video: VideoFile, waveform: np.ndarray | None) -> Sound:
    if waveform is None:
        return own_sound(container, video)
    return waveform_sound(container, waveform)
