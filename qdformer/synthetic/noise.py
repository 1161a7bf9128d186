"""Background noise behind the sound of a clip, at a given signal-to-noise ratio (Fig. 7).

All chance follows from the seed and the clip's name, so every model hears the same, whatever was
read before and by however many workers; at another ratio it is the same noise, louder or softer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import add_noise

from qdformer.audio.log_mel import SAMPLE_RATE
from qdformer.errors import InputError
from qdformer.synthetic.asset_readers import loud_starts, read_sound
from qdformer.synthetic.assets import Asset

MAX_SNR = 100.0
"""Ratios from minus to plus this are taken, dB; beyond them nothing of the weaker one is left."""

_SUFFIXES = (".wav", ".flac", ".ogg")
_VOICES = 8
_SYLLABLES = 5.0  # Hz, the fastest change of a voice's loudness

Draw = np.random.Generator


@dataclass(frozen=True)
class BackgroundNoise:
    """The noise behind one clip.

    Attributes:
        source: a recording, or the name of a synthesized noise, a key of ``SYNTHESIZED``.
        snr: energy of the sound over that of the noise, over the whole clip, dB.
        seed: of this clip; draws the place in the recording, or the synthesized noise.
    """

    source: Asset | str
    snr: float
    seed: int

    def add_to(self, waveform: np.ndarray) -> np.ndarray:
        """Adds the noise to a sound, which keeps its level.

        A loud second of a recording falls somewhere into the clip; what comes before and after it
        fills the rest, and where the recording ends it begins again.

        Args:
            waveform: (L,) mono at 16 kHz, full scale at 1.

        Returns:
            (L,) float64. A silent sound has no ratio to anything and stays silent.

        Raises:
            InputError: the recording cannot be decoded or is silent.
        """
        rng = np.random.default_rng(self.seed)
        if isinstance(self.source, Asset):
            loud = rng.choice(loud_starts(self.source))
            place = rng.integers(max(len(waveform) - SAMPLE_RATE, 0) + 1)
            noise = np.resize(np.roll(read_sound(self.source), place - loud), len(waveform))
        else:
            noise = SYNTHESIZED[self.source](rng, max(len(waveform), SAMPLE_RATE))[: len(waveform)]
        return mix_at_snr(waveform, noise, self.snr)


def mix_at_snr(waveform: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Adds noise to a sound, which keeps its level.

    Args:
        waveform: (L,).
        noise: (L,).
        snr: energy of the sound over that of the noise, dB.

    Returns:
        (L,) float64; the sound as it is where it or the noise is silent.
    """
    # In float64, whose squares neither vanish nor overflow for any float32 sample.
    sound, behind = (torch.from_numpy(np.array(part, np.float64)) for part in (waveform, noise))
    if sound.any() and behind.any():
        sound = add_noise(sound, behind, torch.tensor(snr, dtype=torch.float64))
    return sound.numpy()


def draw_noise(
    video_ids: Sequence[str], snr: float, source: str | Path = "mixture", seed: int = 0
) -> list[BackgroundNoise]:
    """The noise behind each clip of a data set.

    Args:
        video_ids: the clips' names; a clip's noise does not depend on the others.
        snr: energy of the sound over that of the noise, dB, within ``MAX_SNR``.
        source: a key of ``SYNTHESIZED``, or a folder of recordings (wav, flac, ogg, also in folders
            within it), of which each clip has one drawn; it then depends on which there are.
        seed: at least 0; another one draws other noise.

    Raises:
        InputError: the ratio is out of range, the seed negative, or the source neither a noise that
            is known nor a folder with recordings, or a link leads out of the folder.
    """
    if not -MAX_SNR <= snr <= MAX_SNR:
        raise InputError(
            f"a signal-to-noise ratio is {snr}; give decibels from {-MAX_SNR:.0f} to {MAX_SNR:.0f}."
        )
    if seed < 0:
        raise InputError(f"the seed of the noise is {seed}; it must be at least 0.")
    recordings = None if source in SYNTHESIZED else find_recordings(source)
    noises = []
    for video_id in video_ids:
        rng = np.random.default_rng([seed, *video_id.encode()])
        own_seed = int(rng.integers(2**63))
        chosen = str(source) if recordings is None else recordings[rng.integers(len(recordings))]
        noises.append(BackgroundNoise(source=chosen, snr=float(snr), seed=own_seed))
    return noises


def find_recordings(folder: str | Path) -> list[Asset]:
    """The sound files of a folder and of those within it, in the order of their paths.

    Raises:
        InputError: there is no such folder, it holds none, or a link leads out of it.
    """
    if not Path(folder).is_dir():
        raise InputError(
            f"{folder}: neither a folder of noise recordings nor one of the synthesized noises, "
            f"{', '.join(SYNTHESIZED)}."
        )
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise InputError(
            f"{folder}: has no noise recordings in it; put files of {', '.join(_SUFFIXES)} there."
        )
    return [Asset("noise", path.parent.name, path.stem, path) for path in paths]


def _white(rng: Draw, samples: int) -> np.ndarray:
    return rng.standard_normal(samples)


def _pink(rng: Draw, samples: int) -> np.ndarray:
    """The same power in every octave from 20 Hz on."""
    return _shaped(rng, samples, lambda hertz: np.maximum(hertz, 20.0) ** -0.5)


def _babble(rng: Draw, samples: int) -> np.ndarray:
    """Several voices without words: noise of a speech-like spectrum, swelling by the syllable."""
    voices = [_voice(rng, samples, rng.uniform(350, 700)) for _ in range(_VOICES)]
    return _unit(np.sum(voices, axis=0))


def _voice(rng: Draw, samples: int, formant: float) -> np.ndarray:
    # Rises by 6 dB an octave up to the formant, and falls as fast beyond it.
    timbre = _shaped(rng, samples, lambda hertz: hertz * formant / (hertz**2 + formant**2))
    loudness = _shaped(rng, samples, lambda hertz: (hertz <= _SYLLABLES).astype(float))
    return timbre * np.abs(loudness)


def _mixture(rng: Draw, samples: int) -> np.ndarray:
    """White and pink noise and babble, equally strong."""
    return _unit(_white(rng, samples) + _pink(rng, samples) + _babble(rng, samples))


def _shaped(rng: Draw, samples: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """White noise through a gain by frequency."""
    spectrum = np.fft.rfft(_white(rng, samples))
    spectrum *= gain(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE))
    return _unit(np.fft.irfft(spectrum, samples))


def _unit(noise: np.ndarray) -> np.ndarray:
    return noise / np.sqrt(np.mean(noise**2))


SYNTHESIZED: dict[str, Callable[[Draw, int], np.ndarray]] = {
    "mixture": _mixture,
    "white": _white,
    "pink": _pink,
    "babble": _babble,
}
"""Noise that takes no recordings: functions of a generator and a number of samples."""
