"""Frames and sound into one mp4 file that common players and browsers show."""

import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from torch import Tensor

from qdformer.data.audio import SAMPLE_RATE
from qdformer.errors import InputError
from qdformer.whole_file import whole_file

# Pictures a second that a file has at least: several players stutter, or show nothing, at 1.
MIN_CONTAINER_RATE = 10


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    waveform: np.ndarray | Tensor | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Write frames, and a sound where there is one, as an mp4 file (h264, yuv420p; AAC, mono).

    The frames are taken one at a time, so that a generator may give more than memory holds. Slow
    frame rates are written at ``MIN_CONTAINER_RATE`` pictures a second or a little more by
    repeating each frame a whole number of times; the sound is cut, or continued with silence, to
    the length of the picture. yuv420p wants an even height and width: an odd one gets its last row
    or column twice. The file appears under its name only when it is complete, and an older file
    of that name stays as it is until then.

    Args:
        path: The file to write, ending in ``.mp4``, in a folder that exists.
        frames: (H, W, 3) uint8 RGB, all of one size, each shown for ``1 / fps`` seconds.
        fps: Frames a second, positive.
        waveform: (L,) float32 in [-1, 1] (values beyond it are clipped), or None for no sound.
        sample_rate: Samples a second of ``waveform`` (Hz), one of those that AAC knows.

    Raises:
        InputError: The folder does not exist, the name does not end in ``.mp4``, ``fps`` is not
            positive, there are no frames, or a frame is not (H, W, 3) uint8 of the first's size.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: videos are written as mp4; give a name that ends in .mp4.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first.")
    if not (fps > 0 and math.isfinite(fps)):
        raise InputError(f"{path}: {fps} frames per second given; the rate must be positive.")
    frames = _checked(path, frames)
    with (
        whole_file(path) as partial,
        av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        _encode(container, frames, Fraction(fps).limit_denominator(1001), waveform, sample_rate)


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
    height, width = first.shape[:2]
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    repeats = max(1, math.ceil(MIN_CONTAINER_RATE / fps))

    video = container.add_stream("libx264", rate=fps * repeats, options={"crf": "18"})
    video.width, video.height, video.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    # The conversion from RGB is BT.601's (6): untagged, players take large pictures for BT.709.
    video.codec_context.colorspace = 6
    streams = [video]
    if waveform is not None:
        streams.append(container.add_stream("aac", rate=sample_rate, layout="mono"))

    written = 0
    for index, frame in enumerate(chain([first], frames)):
        picture = av.VideoFrame.from_ndarray(np.pad(frame, odd, mode="edge"), format="rgb24")
        for repeat in range(repeats):
            picture.pts = index * repeats + repeat
            container.mux(video.encode(picture))
        if waveform is not None:
            end = round((index + 1) / fps * sample_rate)
            container.mux(streams[1].encode(_sound(waveform, written, end, sample_rate)))
            written = end
    for stream in streams:
        container.mux(stream.encode(None))


def _sound(waveform: np.ndarray | Tensor, start: int, end: int, sample_rate: int) -> av.AudioFrame:
    """Samples [start, end), silence where the sound is over."""
    piece = np.clip(np.asarray(waveform[start:end], dtype=np.float32), -1, 1)
    piece = np.pad(piece, (0, end - start - len(piece)))
    frame = av.AudioFrame.from_ndarray(piece[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
    return frame
