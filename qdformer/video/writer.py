"""Pictures and sound into one mp4 file that common players and browsers show."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer

from qdformer.errors import InputError
from qdformer.io.atomic_write import atomic_write
from qdformer.video.audio_packets import Sound, own_sound, waveform_sound
from qdformer.video.reader import Picture, VideoFile

# Frames per second that a file has at least: several players stutter, or show nothing, at 1.
MIN_CONTAINER_RATE = 10

SLOWEST, FASTEST = 0.01, 1000
"""Frames per second that are written."""

# What the conversion from RGB does; untagged, players take large pictures for BT.709.
_BT_601 = 6

_NO_SOUND = (math.inf, None)


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    waveform: np.ndarray | None = None,
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
        fps: Frames a second, ``SLOWEST`` to ``FASTEST``.
        waveform: (L,) floats in [-1, 1] (values beyond it are clipped) or integers at 16 kHz, see
            :func:`~qdformer.audio.log_mel.mono_samples`; None for no sound.

    Raises:
        InputError: The folder does not exist, the name does not end in ``.mp4``, ``fps`` is not
            possible, there are no frames, or a frame is not (H, W, 3) uint8 of the first's size.
    """
    path = _checked_path(path)
    if not SLOWEST <= fps <= FASTEST:
        raise InputError(
            f"{path}: {fps} frames per second given; {SLOWEST} to {FASTEST} are possible."
        )
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write; give at least one.")
    rate = Fraction(float(fps)).limit_denominator(1001)
    repeats = max(1, math.ceil(MIN_CONTAINER_RATE / rate))
    shape = np.shape(first)

    def shown() -> Iterator[_Shown]:
        for index, frame in enumerate(chain([first], frames)):
            image = _checked(path, f"frame {index}", frame, shape)
            for repeat in range(repeats):
                yield _Shown(image, index * repeats + repeat, 1)

    _checked(path, "frame 0", first, shape)
    with _container(path) as container:
        stream = _add_pictures(container, shape, rate * repeats, 1 / (rate * repeats))
        sound = iter(()) if waveform is None else waveform_sound(container, waveform)
        _encode(container, stream, shown(), sound)


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
    shape = (video.height, video.width, 3)

    def shown() -> Iterator[_Shown]:
        picture: Any
        for picture, following in pairwise(chain([first], pictures, [None])):
            image = _checked(path, f"the picture at {picture.time:.2f} s", picture.image, shape)
            lasts = video.shown_for(picture.duration)
            ticks = following.pts - picture.pts if following else round(lasts / video.time_base)
            yield _Shown(image, picture.pts, ticks)

    with _container(path) as container, closing(_sound_of(container, video, waveform)) as sound:
        stream = _add_pictures(container, shape, video.rate, video.time_base)
        stream.codec_context.sample_aspect_ratio = video.aspect
        _encode(container, stream, shown(), sound)


class _Shown(NamedTuple):
    """A picture (H, W, 3), when it begins and how long it lasts, in the stream's time base."""

    image: np.ndarray
    pts: int
    ticks: int


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


def _checked(path: Path, name: str, image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    image = np.asarray(image)
    rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    if not rgb or image.shape != shape:
        raise InputError(
            f"{path}: {name} is {image.dtype} of shape {image.shape}; give (H, W, 3) uint8 RGB of "
            f"the size of the first, {shape[1::-1] if len(shape) > 1 else shape}."
        )
    return image


def _add_pictures(
    container: OutputContainer, shape: tuple[int, ...], rate: Fraction, time_base: Fraction
) -> av.VideoStream:
    """A stream for pictures that :func:`_even` has made of (height, width) ones."""
    stream = container.add_stream(
        "libx264", rate=rate, time_base=time_base, options={"crf": "18", "preset": "veryfast"}
    )
    height, width = shape[:2]
    stream.width, stream.height = width + width % 2, height + height % 2
    stream.pix_fmt, stream.codec_context.colorspace = "yuv420p", _BT_601
    # With pictures out of order, an mp4 file cannot say how long the last is shown.
    stream.codec_context.max_b_frames = 0
    stream.codec_context.flags |= Flags.frame_duration
    return stream


def _even(image: np.ndarray) -> av.VideoFrame:
    """yuv420p wants an even height and width: an odd one gets its last row or column twice."""
    odd = image.shape[0] % 2, image.shape[1] % 2
    if any(odd):
        image = np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(image, format="rgb24")


def _encode(
    container: OutputContainer, stream: av.VideoStream, pictures: Iterator[_Shown], sound: Sound
) -> None:
    """Encode picture and sound side by side: what is written first would wait in memory."""
    time_base = stream.codec_context.time_base
    heard, piece = next(sound, _NO_SOUND)
    for picture in pictures:
        frame = _even(picture.image)
        frame.pts, frame.duration, frame.time_base = picture.pts, picture.ticks, time_base
        container.mux(stream.encode(frame))
        while heard < float((picture.pts + picture.ticks) * time_base):
            _mux(container, piece)
            heard, piece = next(sound, _NO_SOUND)
    encoder: Any
    for encoder in container.streams:
        if encoder.codec_context.is_encoder:
            container.mux(encoder.encode(None))


def _mux(container: OutputContainer, piece: av.Packet | av.AudioFrame) -> None:
    encoded = isinstance(piece, av.AudioFrame)
    for packet in container.streams.audio[0].encode(piece) if encoded else [piece]:
        with suppress(ValueError):  # what is damaged in the original is left out
            container.mux(packet)


def _sound_of(container: OutputContainer, video: VideoFile, waveform: np.ndarray | None) -> Any:
    if waveform is None:
        return own_sound(container, video)
    return waveform_sound(container, waveform)
