"""Sound files to the log-mel examples that VGGish takes.

The spectrogram is the one of AudioSet's VGGish (Hershey et al., "CNN architectures for large-scale
audio classification", 2017), as audio-visual segmentation uses it: one example is 0.975 s.
"""

from __future__ import annotations

import io
import logging
import pickle
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from qdformer.errors import InputError

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
NUM_MEL_BANDS = 64
EXAMPLE_FRAMES = 96
EXAMPLE_HOP = 0.96  # seconds

_WINDOW = 400
_HOP = 160
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01
_EXAMPLE_SAMPLES = _WINDOW + _HOP * (EXAMPLE_FRAMES - 1)

_warned: set[str] = set()


def read_waveform(path: str | Path) -> np.ndarray:
    """Reads a sound file as mono at 16 kHz.

    Args:
        path: a file of any format and rate that libsndfile reads; channels are averaged.

    Returns:
        (L,) float32, L > 0, full scale at 1.

    Raises:
        InputError: the file is missing, cannot be decoded, is empty or holds NaN or infinity.
    """
    return _to_mono_16k(*_decode(path))


def log_mel(waveform: Tensor | np.ndarray) -> Tensor:
    """All whole log-mel examples of a sound, 0.96 s apart.

    Frames of 25 ms every 10 ms under a periodic Hann window, not centred; magnitude of the
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
    try:
        with open(path, "rb") as file:
            examples = _TensorUnpickler(file).load()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such log-mel file; check the data set's folder.") from error
    except Exception as error:  # a broken pickle can fail with any type at all
        raise InputError(
            f"{path}: not a pickled log-mel tensor ({_one_line(error)}); restore it, or put the "
            "clip's wav file in place."
        ) from error
    found = tuple(examples.shape) if isinstance(examples, Tensor) else type(examples).__name__
    if not isinstance(examples, Tensor) or found[1:] != (1, EXAMPLE_FRAMES, NUM_MEL_BANDS):
        raise InputError(
            f"{path}: log-mel must be a tensor of shape (E, 1, 96, 64), found {found}."
        )
    examples = examples.detach().float()
    if not len(examples) or not examples.isfinite().all():
        raise InputError(
            f"{path}: log-mel is empty or holds NaN or infinite values; restore the file."
        )
    return examples


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
    samples, rate = _decode(path)
    if samples.shape[1] > 1:
        _warn_once("has several channels, which are averaged", path)
    if rate != SAMPLE_RATE:
        _warn_once(f"is not sampled at {SAMPLE_RATE} Hz and is resampled", path)
    waveform = _to_mono_16k(samples, rate)
    if len(waveform) < required_samples(num_frames, hop):
        _warn_once("is too short for its frames and is continued by silence", path)
    elif len(waveform) >= required_samples(num_frames + 1, hop):
        _warn_once("is longer than its frames and is cut", path)
    return log_mel_examples(waveform, num_frames, hop, chosen)


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


def _decode(path: str | Path) -> tuple[np.ndarray, int]:
    """(L, channels) float32 and the rate in Hz."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such sound file; check the data set's folder.")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(
            f"{path}: cannot be decoded as sound ({_one_line(error)}); give a wav, flac or ogg "
            "file."
        ) from error
    if not len(samples):
        raise InputError(f"{path}: holds no sound at all; give at least one sample.")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds NaN or infinite samples; restore the file.")
    return samples, rate


def _to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    mono = samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return mono
    # The resampler's kernel grows with the terms of the ratio, to gigabytes for rates like 44,101
    # Hz. Every customary rate is exact below 1000; others are off by milliseconds an hour.
    ratio = Fraction(SAMPLE_RATE, rate).limit_denominator(1000)
    return _resampler(ratio)(torch.from_numpy(mono)).numpy()


@lru_cache(maxsize=8)
def _resampler(ratio: Fraction) -> Resample:
    """Keeps the kernel, which takes as long to make as five seconds of sound to resample."""
    return Resample(ratio.denominator, ratio.numerator, dtype=torch.float32)


@lru_cache(maxsize=1)
def _mel_matrix() -> Tensor:
    """(257, 64) float64: triangles that are linear in mel, of peak 1; the DC bin has no weight."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64))[:, None]
    lowest, highest = mel(torch.tensor([_LOWEST_HZ, _HIGHEST_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(lowest, highest, NUM_MEL_BANDS + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    weights = torch.minimum(rise, fall).clamp(min=0)
    weights[0] = 0
    return weights


def _spectrogram(examples: Tensor) -> Tensor:
    """(E, 15600) float64 samples -> (E, 1, 96, 64) float32."""
    window = torch.hann_window(_WINDOW, periodic=True, dtype=torch.float64)
    frames = examples.unfold(1, _WINDOW, _HOP)  # (E, 15600) -> (E, 96, 400)
    magnitude = torch.fft.rfft(frames * window, n=_FFT).abs()
    return torch.log(magnitude @ _mel_matrix() + _LOG_OFFSET).float()[:, None]


def _load_storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _latin1(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")


_TENSOR_PARTS = {
    ("collections", "OrderedDict"): dict,
    # How pickle protocols up to 2 write bytes.
    ("_codecs", "encode"): _latin1,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    # torch's own function of this name unpickles without restriction.
    ("torch.storage", "_load_from_bytes"): _load_storage,
}


class _TensorUnpickler(pickle.Unpickler):
    """Knows the names that a pickled tensor refers to, and refuses every other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _TENSOR_PARTS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not tensor data")
        return _TENSOR_PARTS[module, name]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
