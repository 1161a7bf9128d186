"""A camera and a microphone, recorded to a file that the rest reads like any other video."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import av
from av.container import InputContainer

from qdformer.errors import InputError
from qdformer.io.atomic_write import atomic_write

CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
MICROPHONES = {"linux": "alsa", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's name for the devices of each platform."""

_RATE = 48000
_BEHIND = 256  # frames of sound that may wait for the pictures
_PATIENCE = 5.0  # seconds that a device may give nothing


def record(
    path: Path,
    camera: str,
    microphone: str,
    seconds: float,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Record pictures and sound, which begin together, to an mkv file.

    Args:
        path: of the file; it is there when it is whole.
        camera: a device as FFmpeg names it, or a video file in its stead.
        microphone: the same for the sound; "none" for none.
        seconds: to record.
        progress: called with the seconds that are recorded.

    Raises:
        InputError: a device cannot be opened, or gives nothing.
    """
    if not 0 < seconds <= 24 * 3600:
        raise InputError(f"{seconds} seconds were asked for; give more than 0 and at most a day")
    pictures = _opened("camera", camera, CAMERAS)
    sound = None if microphone == "none" else _opened("microphone", microphone, MICROPHONES)
    with atomic_write(path) as partial:
        _record(partial, pictures, sound, seconds, progress)


def _record(
    path: Path,
    pictures: InputContainer,
    sound: InputContainer | None,
    seconds: float,
    progress: Callable[[float], None],
) -> None:
    waiting: Queue = Queue(_BEHIND)
    done = threading.Event()
    listener = threading.Thread(target=_listen, args=(sound, seconds, waiting, done), daemon=True)
    with av.open(str(path), "w", format="matroska") as output:
        shown = output.add_stream("libx264", Fraction(30), options={"preset": "ultrafast"})
        shown.codec_context.time_base = Fraction(1, 90000)
        heard = output.add_stream("aac", _RATE, layout="mono") if sound is not None else None
        if sound is not None:
            listener.start()
        try:
            first: float | None = None
            for frame in _decoded(pictures, "video"):
                first = frame.time if first is None else first
                time = frame.time - first
                if time >= seconds:
                    break
                if not shown.codec_context.is_open:
                    # yuv420p wants even sizes.
                    shown.width, shown.height = frame.width // 2 * 2, frame.height // 2 * 2
                    shown.pix_fmt = "yuv420p"
                picture = frame.reformat(shown.width, shown.height, "yuv420p")
                picture.pts, picture.time_base = round(time * 90000), Fraction(1, 90000)
                picture.pict_type = av.video.frame.PictureType.NONE
                output.mux(shown.encode(picture))
                _write_sound(output, heard, waiting, until=time)
                progress(time)
            if first is None:
                raise InputError(f"{pictures.name}: the camera gives no picture; choose another")
            _write_sound(output, heard, waiting, until=seconds, to_the_end=True)
        finally:
            done.set()
            pictures.close()
            if sound is not None:
                listener.join(_PATIENCE)
                # One that gives nothing more is left to the end of the process.
                if not listener.is_alive():
                    sound.close()
        for stream in filter(None, (shown, heard)):
            output.mux(stream.encode(None))


def _listen(sound: InputContainer, seconds: float, waiting: Queue, done: threading.Event) -> None:
    """Put frames of mono sound in a queue, each with its time, and None at the end."""
    resampler = av.AudioResampler("fltp", "mono", _RATE, frame_size=1024)
    taken = 0
    for frame in chain(_decoded(sound, "audio"), [None]):
        for part in resampler.resample(frame):
            if taken >= seconds * _RATE:
                frame = None
                break
            part.pts, part.time_base = taken, Fraction(1, _RATE)
            taken += part.samples
            _put(waiting, part, done)
        if frame is None or done.is_set():
            break
    _put(waiting, None, done)


def _put(waiting: Queue, part: Any, done: threading.Event) -> None:
    while not done.is_set():
        try:
            return waiting.put(part, timeout=0.1)
        except Full:
            continue


def _write_sound(
    output: Any, heard: Any, waiting: Queue, until: float, to_the_end: bool = False
) -> None:
    """Encode what was heard so far, or also what is still to come."""
    while heard is not None:
        try:
            part = waiting.get(timeout=_PATIENCE) if to_the_end else waiting.get_nowait()
        except Empty:
            return
        if part is None:
            waiting.put(None)
            return
        output.mux(heard.encode(part))
        if part.time >= until:
            return


def _decoded(container: InputContainer, kind: str) -> Iterator[Any]:
    stream = next((stream for stream in container.streams if stream.type == kind), None)
    if stream is None:
        raise InputError(f"{container.name}: gives no {kind}; choose another device")
    yield from container.decode(stream)


def _opened(what: str, name: str, formats: dict[str, str]) -> InputContainer:
    try:
        return av.open(name, format=None if os.path.isfile(name) else formats.get(sys.platform))
    except (av.FFmpegError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InputError(
            f"{name}: the {what} cannot be opened ({told}); name it as FFmpeg does, or check that "
            "nothing else uses it"
        ) from error
