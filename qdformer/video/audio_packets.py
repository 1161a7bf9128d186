"""Sound for an mp4 file, in order and as it is needed.

Every generator adds its stream to the file when its first piece is asked for, which has to be
before anything is written.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import count, islice
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from qdformer.audio.log_mel import mono_samples
from qdformer.io.audio_file import SAMPLE_RATE
from qdformer.video.audio_track import PlacedSound
from qdformer.video.reader import VideoFile

Sound = Iterator[tuple[float, av.Packet | av.AudioFrame]]
"""From which second on a piece sounds, and the piece: to be written, or encoded before."""

_BIT_RATE = 192_000
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
# What both mp4 files and browsers, or at least a system's own player, take as it is.
_COPIED = {"aac", "mp3", "opus", "flac", "ac3", "eac3", "alac"}
# Decoders need packets before the one that they are to play; a player leaves out what is before 0.
_PREROLL = 0.2


def waveform_sound(output: OutputContainer, waveform: np.ndarray) -> Sound:
    """(L,) samples in [-1, 1] at 16 kHz as AAC, then silence without end."""
    output.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=_BIT_RATE)
    for start, end in _blocks(SAMPLE_RATE):
        piece = mono_samples(waveform[start:end])[None]
        piece = np.pad(piece, ((0, 0), (0, end - start - piece.shape[1])))
        yield start / SAMPLE_RATE, _frame(piece, start, SAMPLE_RATE)


def own_sound(output: OutputContainer, video: VideoFile) -> Sound:
    """A video's chosen track, as it is stored where an mp4 file can hold it, else as AAC."""
    with video.media.opened() as container:
        stream = video.sound_stream(container)
        if stream is not None and _can_be_copied(video):
            yield from _copied(output, video, container, stream)
            return
    if stream is not None:
        yield from _encoded(output, video)


def _can_be_copied(video: VideoFile) -> bool:
    """Tries it with the first packets: what is in a track may not be what it claims to be."""
    with video.media.opened() as container:
        stream: Any = video.sound_stream(container)
        if stream.codec_context.codec.canonical_name not in _COPIED:
            return False
        try:
            with av.open(io.BytesIO(), "w", format="mp4") as trial:
                for _, packet in islice(_copied(trial, video, container, stream), 3):
                    trial.mux(packet)
        except Exception:
            return False
    return True


def _copied(
    output: OutputContainer, video: VideoFile, container: InputContainer, stream: av.AudioStream
) -> Sound:
    copy = output.add_stream_from_template(stream)
    shift, last = round(video.start / stream.time_base), None
    for packet in video.media.packets(container, stream):
        if packet.pts is None:
            continue
        packet.dts = packet.pts = packet.pts - shift
        seconds = float(packet.pts * stream.time_base)
        if seconds >= -_PREROLL and (last is None or packet.pts > last):
            last, packet.stream = packet.pts, copy
            yield seconds, packet


def _encoded(output: OutputContainer, video: VideoFile) -> Sound:
    sound = PlacedSound(_for_aac(video.sound_frames()), video.start, mono=False)
    if sound.rate is None:
        return
    layout = "mono" if sound.channels == 1 else "stereo"
    output.add_stream("aac", rate=sound.rate, layout=layout, bit_rate=_BIT_RATE)
    for start, end in _blocks(sound.rate):
        yield start / sound.rate, _frame(sound.read(start, end), start, sound.rate)
        sound.forget(end)
        if sound.over and end >= sound.end:
            return


def _for_aac(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Of one rate that AAC knows, with one channel or two."""
    resampler, known, layout, rate = None, None, None, None
    for frame in frames:
        kind = (frame.sample_rate, frame.layout.name, frame.format.name)
        if layout is None:
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            rate = next((r for r in _AAC_RATES if r >= frame.sample_rate), _AAC_RATES[-1])
        if kind != known:
            yield from _resampled(resampler, None)
            resampler, known = av.AudioResampler("fltp", layout, rate), kind
        yield from _resampled(resampler, frame)
    yield from _resampled(resampler, None)


def _resampled(
    resampler: av.AudioResampler | None, frame: av.AudioFrame | None
) -> list[av.AudioFrame]:
    try:
        return resampler.resample(frame) if resampler is not None else []
    except Exception:  # a damaged frame, whose sound is left out
        return []


def _blocks(rate: int) -> Iterator[tuple[int, int]]:
    """Samples [start, end) of a hundredth of a second each, without end."""
    length = rate // 100
    return ((start, start + length) for start in count(0, length))


def _frame(samples: np.ndarray, start: int, rate: int) -> av.AudioFrame:
    layout = "mono" if len(samples) == 1 else "stereo"
    samples = np.ascontiguousarray(samples.clip(-1, 1))
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame
