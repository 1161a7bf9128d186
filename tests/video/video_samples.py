"""Small video files of known pictures and sound, made with PyAV."""

from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH = 48, 64


@dataclass
class Track:
    """Sound: (C, L) in [-1, 1], from `start` seconds on; `gap` leaves out seconds [from, to)."""

    samples: np.ndarray
    rate: int
    codec: str = "pcm_f32le"
    start: float = 0.0
    gap: tuple[float, float] = (0.0, 0.0)


@dataclass
class Film:
    """What a file holds. Pictures are (H, W, 3), shown from `pts` units of `time_base` on."""

    images: list[np.ndarray]
    codec: str = "ffv1"
    pix_fmt: str | None = None
    rate: int = 10
    time_base: Fraction = Fraction(1, 1000)
    pts: list[int] | None = None
    tracks: list[Track] = field(default_factory=list)
    turn: tuple[int, bool, bool] | None = None
    aspect: Fraction | None = None
    colorspace: int | None = None


def shades(count, height=HEIGHT, width=WIDTH):
    """Plain pictures, each of another gray."""
    return [
        np.full((height, width, 3), 20 + index * 200 // count, np.uint8) for index in range(count)
    ]


def corners(height=HEIGHT, width=WIDTH):
    """Red, green / blue, white: tells all eight ways to put a picture."""
    image = np.zeros((height, width, 3), np.uint8)
    y, x = height // 2, width // 2
    image[:y, :x], image[:y, x:] = (250, 0, 0), (0, 250, 0)
    image[y:, :x], image[y:, x:] = (0, 0, 250), (250, 250, 250)
    return image


def tone(hertz, seconds, rate, channels=1):
    times = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * hertz * (c + 1) * times) for c in range(channels)])


def make(file, film, container):
    """Writes a film into a path or a file object; container: mp4, mov, matroska, webm, avi, gif."""
    with av.open(file if hasattr(file, "write") else str(file), "w", format=container) as output:
        video = _picture_stream(output, film)
        sounds = [_sound_stream(output, track) for track in film.tracks]
        tick = 1 / (film.rate * video.codec_context.time_base)
        for index, image in enumerate(film.images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if film.colorspace is not None:
                frame = frame.reformat(format=video.pix_fmt, dst_colorspace=film.colorspace)
            frame.pts = film.pts[index] if film.pts else round(index * tick)
            frame.time_base = video.codec_context.time_base
            _mux(output, video.encode(frame))
        _mux(output, video.encode(None))
        for stream, track in zip(sounds, film.tracks, strict=True):
            for frame in _sound_frames(stream, track):
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return file


def _mux(output, packets):
    for packet in packets:
        # An avi file has no times: for those before 0 and for gaps it gets empty pictures.
        packet.dts = packet.pts if output.format.name == "avi" else packet.dts
        output.mux(packet)


def _picture_stream(output, film):
    base = Fraction(1, film.rate) if output.format.name == "avi" else film.time_base
    options = {"qscale": "1"} if "mpeg4" in film.codec else {}
    video = output.add_stream(film.codec, rate=film.rate, time_base=base, options=options)
    video.height, video.width = film.images[0].shape[:2]
    if film.pix_fmt or video.codec_context.codec.video_formats:
        names = [f.name for f in video.codec_context.codec.video_formats or []]
        video.pix_fmt = film.pix_fmt or ("yuv420p" if "yuv420p" in names else names[0])
    if film.codec == "mjpeg":
        video.pix_fmt = "yuvj420p"
    if film.codec == "ffv1" and not film.pix_fmt:
        video.pix_fmt = "bgr0"
    if film.colorspace is not None:
        video.codec_context.colorspace = film.colorspace
    if film.turn is not None:
        degrees, across, down = film.turn
        video.set_display_rotation(degrees, hflip=across, vflip=down)
    if film.aspect is not None:
        video.codec_context.sample_aspect_ratio = film.aspect
    return video


def _sound_stream(output, track):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(track.samples)]
    return output.add_stream(track.codec, rate=track.rate, layout=layout)


_LARGEST = {"s16": 2**15 - 1, "s32": 2**31 - 1}


def _sound_frames(stream, track):
    kind = stream.format.name.rstrip("p")
    length = max(1, track.rate // 50)
    for start in range(0, track.samples.shape[1], length):
        if track.gap[0] <= start / track.rate < track.gap[1]:
            continue
        piece = track.samples[:, start : start + length]
        if kind in _LARGEST:
            piece = (piece * _LARGEST[kind]).round()
        piece = np.ascontiguousarray(piece.astype({"s16": "i2", "flt": "f4", "s32": "i4"}[kind]))
        if not stream.format.is_planar:
            piece = np.ascontiguousarray(piece.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(
            piece, format=stream.format.name, layout=stream.layout.name
        )
        frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
        frame.pts = start + round(track.start * track.rate)
        yield frame
