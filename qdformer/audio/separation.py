"""Takes a sound apart in the time domain, before a model hears it (Tab. 2, row 2).

A separator is a function of a waveform (L,) float32, mono at 16 kHz, and a number of sources S that
returns (S, L). Any function registered in ``SEPARATOR_REGISTRY`` can be named in the config.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from fvcore.common.registry import Registry
from torchaudio.functional import melscale_fbanks

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.errors import InputError

Separator = Callable[[np.ndarray, int], np.ndarray]

SEPARATOR_REGISTRY = Registry("SEPARATOR")
"""Separators by name; ``@SEPARATOR_REGISTRY.register()`` adds a function under its own name."""

_FFT, _HOP = 1024, 256
_COMPONENTS, _ITERATIONS = 8, 100  # components of a source
_MEL_BANDS, _LOWEST_LEVEL = 40, 0.01  # bands, and their least share of the strongest one
_REACH, _FLOOR = 2.0, 0.1  # of a component's first spectrum: in components, and everywhere else
_SEED = 0


def build_separator(cfg) -> Callable[[np.ndarray], np.ndarray] | None:
    """The separator that ``INPUT.SEPARATION`` asks for, None where it asks for none.

    Returns:
        A function of a waveform (L,) that returns ``NUM_SOURCES`` of the same length, (S, L).

    Raises:
        InputError: there is no such separator, or the number of sources is below 1.
    """
    method, count = cfg.INPUT.SEPARATION.METHOD, cfg.INPUT.SEPARATION.NUM_SOURCES
    if not method:
        return None
    if method not in SEPARATOR_REGISTRY:
        known = ", ".join(name for name, _ in SEPARATOR_REGISTRY)
        raise InputError(
            f"INPUT.SEPARATION.METHOD is {method!r}; registered are {known}; empty for none."
        )
    if count < 1:
        raise InputError(f"INPUT.SEPARATION.NUM_SOURCES is {count}; it must be at least 1.")
    # The function itself, which workers that start anew import with its module.
    return partial(_separate, SEPARATOR_REGISTRY.get(method), count)


@SEPARATOR_REGISTRY.register()
def nmf(waveform: np.ndarray, count: int) -> np.ndarray:
    """Separates by non-negative matrix factorization of the magnitude spectrogram, without weights.

    The spectrogram becomes a sum of components, each one spectrum that swells and fades (Smaragdis
    and Brown, 2003); components of like timbre, by their log-mel spectrum, make up a source
    (Spiertz and Gnann, 2009). Each source has its share of the energy of every bin. The same
    waveform always gives the same sources.

    Args:
        waveform: (L,) mono at 16 kHz.
        count: S.

    Returns:
        (S, L) float32, the loudest source first; they add up to the waveform. For S = 1 it is the
        waveform itself; of silence all are silent.
    """
    if count == 1:
        return np.array(waveform, np.float32)[None]
    if not np.any(waveform):
        return np.zeros((count, len(waveform)), np.float32)
    samples = torch.from_numpy(np.array(waveform, np.float64))
    # What is loud or soft is separated alike: the factors start at the spectrogram's own level.
    peak = samples.abs().max()
    window = torch.hann_window(_FFT, dtype=torch.float64)
    spectrogram = torch.stft(
        samples / peak, _FFT, _HOP, window=window, pad_mode="constant", return_complex=True
    )
    masks = torch.from_numpy(_masks(spectrogram.abs().numpy(), count))
    sources = torch.istft(spectrogram * masks, _FFT, _HOP, window=window, length=len(samples))
    order = sources.square().sum(1).argsort(descending=True, stable=True)
    return (sources[order] * peak).float().numpy()


def _separate(separator: Separator, count: int, waveform: np.ndarray) -> np.ndarray:
    sources = np.asarray(separator(np.asarray(waveform, np.float32), count))
    if sources.shape != (count, len(waveform)) or not np.isfinite(sources).all():
        raise InputError(
            f"INPUT.SEPARATION: {getattr(separator, '__name__', separator)} made an array of shape "
            f"{sources.shape} of {len(waveform):,} samples; it must return finite samples of shape "
            f"{(count, len(waveform))}."
        )
    return sources


def _masks(magnitude: np.ndarray, count: int) -> np.ndarray:
    """Shares (S, bins, frames) of the sources in a spectrogram, 1 in sum."""
    # Here, since scikit-learn takes a second to import and few runs separate anything.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # One thread: more are not faster here, round otherwise, and hang in a process that was forked
    # from one that has used them.
    with threadpool_limits(limits=1):
        spectra, gains = _factorize(magnitude, count * _COMPONENTS)
        mel = np.log(_relative(spectra.T @ _mel_bands()) + _LOWEST_LEVEL)
        mel -= mel.mean(1, keepdims=True)
        timbre = mel / np.maximum(np.linalg.norm(mel, axis=1, keepdims=True), 1e-9)
        loudness = spectra.sum(0) * gains.sum(1)
        clusters = KMeans(count, n_init=10, random_state=_SEED)
        labels = clusters.fit(timbre, sample_weight=loudness).labels_
    energies = [(spectra[:, labels == s] @ gains[labels == s]) ** 2 for s in range(count)]
    # Far below what is heard; where nothing is, the sources share alike.
    powers = np.stack(energies) + 1e-12
    return powers / powers.sum(0)


def _factorize(magnitude: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (bins, components) and gains (components, frames), whose product is near."""
    from sklearn.decomposition import NMF

    rng, scale = np.random.default_rng(_SEED), np.sqrt(magnitude.mean() / components)
    # Each starts around a pitch of its own, so that tones that begin and end together, which any
    # factors fit, fall to different components.
    mel = np.log1p(np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE) / 700)
    pitches = (np.arange(components) + 0.5) / components * mel[-1]
    distances = (mel[:, None] - pitches) * components / mel[-1] / _REACH
    spectra = _FLOOR + (1 - _FLOOR) * np.exp(-(distances**2) / 2)
    spectra *= scale * rng.uniform(0.5, 1, spectra.shape)
    gains = scale * rng.uniform(0.5, 1, (components, magnitude.shape[1]))
    # No tolerance: to stop early needs the error, which takes as long to compute as a step.
    model = NMF(
        components,
        init="custom",
        solver="mu",
        beta_loss="kullback-leibler",
        max_iter=_ITERATIONS,
        tol=0,
    )
    spectra = model.fit_transform(magnitude, W=spectra, H=gains)
    return spectra, model.components_


def _relative(spectra: np.ndarray) -> np.ndarray:
    return spectra / np.maximum(spectra.max(1, keepdims=True), 1e-30)


@lru_cache(maxsize=1)
def _mel_bands() -> np.ndarray:
    """(bins, bands)."""
    return melscale_fbanks(_FFT // 2 + 1, 0, SAMPLE_RATE / 2, _MEL_BANDS, SAMPLE_RATE).numpy()
