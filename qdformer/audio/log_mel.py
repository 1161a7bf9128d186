"""Sound files to the log-mel examples that VGGish takes.

The spectrogram is the one of AudioSet's VGGish (Hershey et al., "CNN architectures for large-scale
audio classification", 2017), as audio-visual segmentation uses it: one example is 0.975 s.
"""

from __future__ import annotations

import logging
import math
import pickle
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from qdformer.errors import InputError
from qdformer.io.audio_file import (
    HIGHEST_RATE,
    LOWEST_RATE,
    SAMPLE_RATE,
    Sound,
    read_sound_file,
)
from qdformer.io.open_file import open_file
from qdformer.io.unpickling import read_pickle

logger = logging.getLogger(__name__)

NUM_MEL_BANDS = 64
EXAMPLE_FRAMES = 96
EXAMPLE_HOP = 0.96  # seconds

MAX_LOG_MEL_BYTES = 2**28
"""The greatest log-mel file that is read: examples for almost three hours."""

_LOG_OFFSET = 0.01
SILENT_LOG_MEL = math.log(_LOG_OFFSET)  # where there is no sound at all

_WINDOW = 400
_HOP = 160
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_EXAMPLE_SAMPLES = _WINDOW + _HOP * (EXAMPLE_FRAMES - 1)
# Samples at the limit of float32 have 95. From here on a network's numbers would overflow.
_MAX_LOG_MEL = 100.0

# Clipped sound is a little above 1, 8-bit samples that were taken for floats go up to 128.
_LOUDEST = 16.0

_warned: set[str] = set()


def read_waveform(path: str | Path) -> np.ndarray:
    """Reads a sound file as mono at 16 kHz.

    Args:
        path: a wav, flac or ogg file; channels are averaged, other rates are resampled.

    Returns:
        (L,) float32, L > 0, all finite, full scale at 1.

    Raises:
        InputError: the file is missing, cannot be decoded, is empty, holds NaN or infinity, or has
            a rate or a length that is not read, see :func:`.sound_file.read_sound_file`.
    """
    return _to_16k(path, read_sound_file(path))


def log_mel(waveform: Tensor | np.ndarray) -> Tensor:
    """All whole log-mel examples of a sound, 0.96 s apart.

    Frames of 25 ms every 10 ms under a periodic Hann window, not centerd; magnitude of the
    512-point FFT; 64 mel bands from 125 to 7500 Hz; natural logarithm of (mel + 0.01). Computed in
    float64.

    Args:
        waveform: (L,) mono at 16 kHz, full scale at 1.

    Returns:
        (E, 1, 96, 64) float32 with E = 1 + floor((L - 15600) / 15360), 0 for anything shorter. What
        does not fill an example is dropped.
    """
    samples = torch.as_tensor(waveform, dtype=torch.float64)
    if len(samples) < _EXAMPLE_SAMPLES:
        return torch.empty(0, 1, EXAMPLE_FRAMES, NUM_MEL_BANDS)
    return _spectrogram(samples.unfold(0, _EXAMPLE_SAMPLES, round(EXAMPLE_HOP * SAMPLE_RATE)))


def log_mel_examples(
    waveform: Tensor | np.ndarray,
    num_frames: int,
    hop: float = EXAMPLE_HOP,
    chosen: slice = slice(None),
) -> Tensor:
    """One log-mel example for each frame of a clip.

    Args:
        waveform: (L,) mono at 16 kHz. Shorter sound is continued by silence, longer is cut.
        num_frames: T.
        hop: seconds between two examples; example t covers [hop * t, hop * t + 0.975] seconds.
        chosen: the frames whose examples are wanted, at least one; by default all.

    Returns:
        (T, 1, 96, 64) float32, or as many as are chosen. With the default hop all are the first T
        of :func:`log_mel`.
    """
    assert num_frames > 0 and hop > 0, (num_frames, hop)
    samples = torch.as_tensor(waveform, dtype=torch.float64)
    missing = max(0, required_samples(num_frames, hop) - len(samples))
    samples = torch.nn.functional.pad(samples, (0, missing))
    starts = [round(hop * t * SAMPLE_RATE) for t in range(num_frames)[chosen]]
    return _spectrogram(torch.stack([samples[s : s + _EXAMPLE_SAMPLES] for s in starts]))


def required_samples(num_frames: int, hop: float = EXAMPLE_HOP) -> int:
    """Samples at 16 kHz that T examples need, ``hop`` seconds apart: 77,040 for five."""
    return round(hop * (num_frames - 1) * SAMPLE_RATE) + _EXAMPLE_SAMPLES


def read_log_mel(path: str | Path) -> Tensor:
    """Reads one of the log-mel files that AVSBench releases beside S4 and MS3.

    They are pickled tensors. Only what makes up a tensor is unpickled, so a file from elsewhere
    cannot run code.

    Returns:
        (E, 1, 96, 64) float32, examples 0.96 s apart.

    Raises:
        InputError: the file is missing, or holds anything but a finite tensor of that shape.
    """
    with open_file(path, "log-mel", MAX_LOG_MEL_BYTES) as file:
        try:
            examples = read_pickle(file)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path}: not a pickled log-mel tensor ({error}); restore it, or put the clip's "
                "wav file in place."
            ) from error
    if not isinstance(examples, Tensor) or not examples.is_floating_point():
        found = examples.dtype if isinstance(examples, Tensor) else type(examples).__name__
        raise InputError(f"{path}: log-mel must be a floating-point tensor, found {found}.")
    if examples.shape[1:] != (1, EXAMPLE_FRAMES, NUM_MEL_BANDS):
        raise InputError(
            f"{path}: log-mel must be a tensor of shape (E, 1, 96, 64), found "
            f"{tuple(examples.shape)}."
        )
    examples = examples.float()
    if not len(examples) or not examples.isfinite().all():
        raise InputError(
            f"{path}: log-mel is empty or holds NaN or infinite values; restore the file."
        )
    if examples.abs().max() > _MAX_LOG_MEL:
        raise InputError(
            f"{path}: log-mel values must lie within {_MAX_LOG_MEL:.0f} of 0, found "
            f"{examples.abs().max():.4g}; restore the file."
        )
    return examples


def write_log_mel(path: str | Path, examples: Tensor) -> None:
    """Writes examples as AVSBench does, as a pickled tensor; the same examples as the same bytes.

    Args:
        path: ``*.pkl``.
        examples: (E, 1, 96, 64).
    """
    Path(path).write_bytes(pickle.dumps(_PickledTensor(examples.float().numpy()), protocol=2))


class _PickledTensor:
    """Pickles as a tensor made of its array; torch's own pickles hold addresses of memory."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __reduce__(self) -> tuple:
        return Tensor, (self.array,)


def clip_log_mel(
    path: str | Path,
    num_frames: int,
    hop: float = EXAMPLE_HOP,
    chosen: slice = slice(None),
) -> Tensor:
    """The sound of a clip of T frames, from a sound file or from a released log-mel file.

    Stereo is averaged, other rates are resampled, what is missing at the end is silence and what is
    too much is cut; each of these is logged once in a process, with the first file that needed it.

    Args:
        path: ``*.pkl`` is read by :func:`read_log_mel`, everything else as a sound file.
        num_frames: T.
        hop: seconds between two examples. Released log-mel has its own, 0.96 s.
        chosen: the frames whose examples are wanted, at least one; by default all.

    Returns:
        (T, 1, 96, 64) float32, or as many as are chosen.

    Raises:
        InputError: as :func:`read_waveform` and :func:`read_log_mel`.
    """
    if Path(path).suffix == ".pkl":
        return _fit_examples(path, read_log_mel(path), num_frames, hop)[chosen]
    return log_mel_examples(clip_waveform(path, num_frames, hop), num_frames, hop, chosen)


def clip_waveform(path: str | Path, num_frames: int, hop: float = EXAMPLE_HOP) -> np.ndarray:
    """The sound of a clip of T frames as samples, for all that its log-mel cannot give.

    Args:
        path: a sound file; what it lacks or has too much of is logged as by :func:`clip_log_mel`.
        num_frames: T.
        hop: seconds between two examples.

    Returns:
        (L,) float32 at 16 kHz: T seconds, or more where the examples reach beyond them.

    Raises:
        InputError: as :func:`read_waveform` and :func:`check_has_samples`.
    """
    check_has_samples(path)
    # With a second to spare, since resampling looks ahead.
    sound = read_sound_file(path, 1 + required_samples(num_frames + 1, hop) / SAMPLE_RATE)
    if sound.channels > 1:
        _warn_once("has several channels, which are averaged", path)
    if sound.rate != SAMPLE_RATE:
        _warn_once(f"is not sampled at {SAMPLE_RATE} Hz and is resampled", path)
    waveform = _to_16k(path, sound)
    if len(waveform) < required_samples(num_frames, hop):
        _warn_once("is too short for its frames and is continued by silence", path)
    elif len(waveform) >= required_samples(num_frames + 1, hop):
        _warn_once("is longer than its frames and is cut", path)
    length = max(num_frames * SAMPLE_RATE, required_samples(num_frames, hop))
    return np.pad(waveform[:length], (0, max(0, length - len(waveform))))


def check_has_samples(path: str | Path) -> None:
    """Refuses a clip's sound that is there as log-mel only.

    Raises:
        InputError: it is.
    """
    if Path(path).suffix == ".pkl":
        raise InputError(
            f"{path}: is released log-mel, which cannot be mixed with noise nor separated; put the "
            "clip's wav file in its place."
        )


def _fit_examples(path: str | Path, examples: Tensor, num_frames: int, hop: float) -> Tensor:
    if hop != EXAMPLE_HOP:
        _warn_once(
            f"is released log-mel: its examples are {EXAMPLE_HOP} s apart whatever is set", path
        )
    if len(examples) < num_frames:
        _warn_once("is too short for its frames and is continued by silence", path)
        silence = log_mel_examples(torch.zeros(1), num_frames - len(examples))
        return torch.cat([examples, silence])
    if len(examples) > num_frames:
        _warn_once("is longer than its frames and is cut", path)
    return examples[:num_frames]


def _warn_once(what: str, path: str | Path) -> None:
    if what not in _warned:
        _warned.add(what)
        logger.warning("Sound %s %s; further files of that kind are not named.", path, what)


def mono_samples(waveform: Any, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """A sound that is at hand, as :func:`read_waveform` gives that of a file.

    Args:
        waveform: (L,) mono: floats with full scale at 1, or integers whose type says theirs, as
            ``wave``, ``scipy.io.wavfile`` and sound cards give them (uint8 is silent at 128).
        sample_rate: samples a second, Hz.

    Returns:
        (L,) float32 at 16 kHz, full scale at 1.

    Raises:
        InputError: it has another shape or type, holds NaN or infinity, has floats of a full scale
            far beyond 1, or a rate that is not read.
    """
    samples = np.asarray(waveform)
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise InputError(
            f"the sound is sampled at {sample_rate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} are read"
        )
    if samples.ndim != 1 or samples.dtype.kind not in "iuf":
        raise InputError(
            f"the sound is {samples.dtype} of shape {samples.shape}; give (L,) mono, floats in "
            "[-1, 1] or integers"
        )
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (int(info.max) + 1) // 2
        samples = (samples.astype(np.float64) - middle) / (int(info.max) + 1 - middle)
    samples = samples.astype(np.float32)
    peak = float(np.abs(samples).max(initial=0))
    if not peak <= _LOUDEST:
        raise InputError(
            f"the sound has samples of {peak:g}; floats have full scale at 1, so divide them by "
            "theirs (32768 for 16 bits), or give integers"
        )
    return _resampled(samples, sample_rate)


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLE_RATE:
        return samples
    return resampler(resampling_ratio(rate))(torch.from_numpy(samples)).numpy()


def _to_16k(path: str | Path, sound: Sound) -> np.ndarray:
    waveform = _resampled(sound.samples, sound.rate)
    if not np.isfinite(waveform).all():
        raise InputError(
            f"{path}: holds NaN, infinite samples or some at the limit of float32; restore the "
            "file."
        )
    return waveform


def resampling_ratio(rate: int) -> Fraction:
    """Samples at 16 kHz for each sample at ``rate`` Hz.

    The resampler's kernel grows with the terms of the ratio, to gigabytes for rates like 44,101 Hz.
    Every customary rate is exact below 1000; others are off by milliseconds an hour.
    """
    return Fraction(SAMPLE_RATE, rate).limit_denominator(1000)


@lru_cache(maxsize=8)
def resampler(ratio: Fraction) -> Resample:
    """Makes a resampler of (L,) float32 to ceil(L * ratio) samples.

    It is kept: making its kernel takes as long as five seconds of sound to resample.
    """
    return Resample(ratio.denominator, ratio.numerator, dtype=torch.float32)


@lru_cache(maxsize=1)
def _mel_matrix() -> Tensor:
    """(257, 64) float64: triangles that are linear in mel, of peak 1; the DC bin has no weight."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64))[:, None]
    lowest, highest = mel(torch.tensor([_LOWEST_HZ, _HIGHEST_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(lowest, highest, NUM_MEL_BANDS + 2, dtype=torch.float64)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - lower) / (center - lower), (upper - bins) / (upper - center)
    weights = torch.minimum(rise, fall).clamp(min=0)
    weights[0] = 0
    return weights


def _spectrogram(examples: Tensor) -> Tensor:
    """(E, 15600) float64 samples -> (E, 1, 96, 64) float32."""
    window = torch.hann_window(_WINDOW, periodic=True, dtype=torch.float64)
    frames = examples.unfold(1, _WINDOW, _HOP)  # (E, 15600) -> (E, 96, 400)
    magnitude = torch.fft.rfft(frames * window, n=_FFT).abs()
    return torch.log(magnitude @ _mel_matrix() + _LOG_OFFSET).float()[:, None]
