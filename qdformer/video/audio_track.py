"""The sound of a video, a piece at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch

from qdformer.audio.log_mel import resampler, resampling_ratio
from qdformer.io.audio_file import HIGHEST_RATE, LOWEST_RATE

_JITTER = Fraction(50, 1000)  # seconds between two packets that are no gap
# Terms of the ratio on both sides of a piece that its samples depend on. The kernel reaches
# 6 / 0.99 periods of the lower rate, and each term covers at least one.
_MARGIN = 7
_CANCELED = 0.01  # of the channels' energy
_SHARES = {"FL": 0.5, "FR": 0.5, "FC": 0.5**0.5, "LFE": 0.0, "LFE2": 0.0}
_USUAL = {6: "5.1", 8: "7.1"}


class SoundTrack:
    """A file's sound at 16 kHz, read from front to back."""

    def __init__(
        self,
        frames: Iterator[av.AudioFrame],
        start: Fraction,
        warn: Callable[[str, str], None] = lambda what, details: None,
    ) -> None:
        """Takes frames as they are needed.

        Args:
            frames: of one track, in order.
            start: what is second 0, in the frames' own clock; sound before it is left out.
            warn: called for frames of a rate that is not read, and at the end where channels cancel
                each other when they are mixed to one.
        """
        self._sound = PlacedSound(frames, start, mono=True, warn=warn)
        self._forgotten = -(2**62)

    def read(self, start: int, count: int) -> np.ndarray:
        """Samples [start, start + count) from second 0 on.

        Pieces equal those of the whole track resampled at once.

        Args:
            start: may be negative, and must not be before any earlier call's start less its count.
            count: not negative.

        Returns:
            (count,) float32, all finite: the channels in one, full scale at 1; 0 where there
            is no sound.
        """
        assert start >= self._forgotten, (start, self._forgotten)
        self._forgotten = max(self._forgotten, start - count)
        wanted, rate = np.zeros(count, np.float32), self._sound.rate
        end = start + count
        if rate is None or end <= 0:
            return wanted
        ratio = resampling_ratio(rate)
        # A term of the ratio is so many samples at 16 kHz and so many of the track's own.
        new, own = ratio.numerator, ratio.denominator
        first, last = max(0, start // new - _MARGIN), -(-end // new) + _MARGIN
        self._sound.forget((self._forgotten // new - _MARGIN) * own)
        pieces = torch.from_numpy(self._sound.read(first * own, last * own)[0])
        samples = resampler(ratio)(pieces).numpy()
        begin, end = max(start, 0), min(end, math.ceil(self._sound.end * ratio))
        if begin < end:
            piece = samples[begin - first * new : end - first * new]
            wanted[begin - start : end - start] = np.nan_to_num(piece, nan=0, posinf=0, neginf=0)
        return wanted


class PlacedSound:
    """A track's sound at the rate of its first frame, every sample at its time.

    Frames of other rates are brought to it. Frames follow each other without a gap as long as their
    times allow for it within 50 ms.

    Attributes:
        rate: Hz; None where no frame can be used.
        channels: C.
        end: of what has been decoded so far, in samples.
        over: nothing follows.
    """

    def __init__(
        self,
        frames: Iterator[av.AudioFrame],
        start: Fraction,
        mono: bool,
        warn: Callable[[str, str], None] = lambda what, details: None,
    ) -> None:
        """Decodes the first frame.

        Args:
            frames: of one track, in order.
            start: what is sample 0, in seconds of the frames' own clock.
            mono: the mean of the channels is taken; the number of channels must not change
                otherwise.
            warn: see :class:`SoundTrack`.
        """
        self._frames, self._start, self._mono, self._warn = frames, start, mono, warn
        self._energy = np.zeros(2)  # of the channels, and of what is left of them
        # (place, (C, L) samples), ascending and without overlap.
        self._pieces: deque[tuple[int, np.ndarray]] = deque()
        self.rate: int | None = None
        self.channels, self.end, self.over = 1, 0, False
        self._forgotten = 0
        while self.rate is None and not self.over:
            self._decode()

    def read(self, start: int, end: int) -> np.ndarray:
        """(C, end - start) float32, 0 where there is no sound, or where it has been forgotten."""
        while self.end < end and not self.over:
            self._decode()
        samples = np.zeros((self.channels, end - start), np.float32)
        for place, piece in self._pieces:
            begin, stop = max(start, place), min(end, place + piece.shape[1])
            if begin < stop:
                samples[:, begin - start : stop - start] = piece[:, begin - place : stop - place]
        return samples

    def forget(self, place: int) -> None:
        """Lets go of what lies before a sample, now and when it is decoded."""
        self._forgotten = place
        while self._pieces and self._pieces[0][0] + self._pieces[0][1].shape[1] <= place:
            self._pieces.popleft()

    def _decode(self) -> None:
        frame: Any = next(self._frames, None)
        self.over = frame is None
        if self.over and self._energy[1] < _CANCELED * self._energy[0]:
            self._warn("has channels that cancel each other", "little of them is heard here")
        if self.over:
            return
        if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
            rates = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz are read"
            self._warn(f"is sampled at {frame.sample_rate} Hz", f"it is not heard; {rates}")
            return
        try:
            samples, energy = _samples(frame, self._mono)
            self._energy += energy
        except ValueError:  # 64 bits, or a damaged frame
            return
        if self.rate is None:
            self.rate, self.channels = frame.sample_rate, len(samples)
        if frame.sample_rate != self.rate:
            samples = _stretched(samples, self.rate / frame.sample_rate)
        place = self.end
        if frame.pts is not None:
            told = round((frame.pts * frame.time_base - self._start) * self.rate)
            if self.end == 0 or abs(told - place) > _JITTER * self.rate:
                place = told
        begin, end = max(place, self.end), place + samples.shape[1]
        if begin < end:
            self.end = end
            if end > self._forgotten:
                self._pieces.append((begin, samples[:, begin - place :]))


def _samples(frame: av.AudioFrame, mono: bool) -> tuple[np.ndarray, tuple[float, float]]:
    """(C, L) float32, full scale at 1, 0 for what is not finite; where channels are mixed to one,
    their mean energy and that of what is left, each times L.
    """
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    scale, zero = 1.0, 0.0
    if samples.dtype.kind in "iu":
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        zero = scale if samples.dtype.kind == "u" else 0.0
    # In float64, where no sum of float32 samples is too large.
    channels = samples.astype(np.float64)
    mixed = mono and len(channels) > 1
    with np.errstate(invalid="ignore", over="ignore"):
        samples = _mixed(channels, zero, frame.layout) if mixed else channels
        samples = ((samples - zero) / scale).astype(np.float32)
        before = np.square((channels - zero) / scale).mean(0).sum() if mixed else 0.0
    samples = np.nan_to_num(samples, copy=False, nan=0, posinf=0, neginf=0)
    after = np.square(samples, dtype=np.float64).sum() if mixed else 0.0
    return samples, (before, after) if np.isfinite(before + after) else (0.0, 0.0)


def _mixed(samples: np.ndarray, zero: float, layout: av.AudioLayout) -> np.ndarray:
    """(C, L) to (1, L): the mean of one channel or two, of more as ITU-R BS.775 mixes them down.

    There the center, which has the speech, counts most, and the low-frequency effects nothing.
    """
    names = [channel.name for channel in layout.channels]
    if "FL" not in names and len(names) in _USUAL:  # channels without names
        names = [channel.name for channel in av.AudioLayout(_USUAL[len(names)]).channels]
    if len(samples) < 3 or len(names) != len(samples) or "FL" not in names:
        return samples.mean(axis=0, keepdims=True)
    weights = np.array([[_SHARES.get(name, 0.5**1.5) for name in names]])
    # What is in all channels alike is as loud as it is with one channel.
    return weights / weights.sum() @ (samples - zero) + zero


def _stretched(samples: np.ndarray, factor: float) -> np.ndarray:
    """Linear, which is good enough for the rarity of rates that change within a track."""
    length = samples.shape[1]
    places = np.arange(round(length * factor)) / factor
    channels = [np.interp(places, np.arange(length), channel) for channel in samples]
    return np.array(channels, np.float32).reshape(len(samples), -1)
