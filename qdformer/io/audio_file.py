"""Samples of sound files, which may come from anywhere.

Headers are not believed: they can claim hours, or billions of samples. A file is read a block at a
time for as long as it gives samples, and no further than is asked for.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from qdformer.errors import InputError
from qdformer.io.open_file import open_file

MAX_SAMPLES = 2**26
"""The longest sound that is read whole: 70 minutes at 16 kHz, 23 at 48 kHz; takes up to 2 GB."""

SAMPLE_RATE = 16000

LOWEST_RATE, HIGHEST_RATE = 4_000, 1_000_000
"""Sampling rates that are read, Hz; resampling costs memory without bound beyond them."""

_BLOCK_VALUES = 2**20
# libsndfile also takes headers of a dozen systems of the past, and guesses at files without any.
_SIGNATURES = re.compile(rb"(RIFF|RIFX|RF64)....WAVE|fLaC|OggS", re.DOTALL)


@dataclass(frozen=True)
class Sound:
    """What a file holds: ``samples`` (L,) float32, the mean of ``channels``, at ``rate`` Hz."""

    samples: np.ndarray
    rate: int
    channels: int


def read_sound_file(path: str | Path, seconds: float | None = None) -> Sound:
    """Reads a wav, flac or ogg file.

    Args:
        path: what the file is called does not matter.
        seconds: no more than this much is read from its beginning; None reads all of it.

    Returns:
        At least one sample, each finite unless the file's are not.

    Raises:
        InputError: the file is missing, cannot be decoded, is empty, has a rate outside of
            ``LOWEST_RATE`` to ``HIGHEST_RATE`` or is longer than ``MAX_SAMPLES``, as it is stored
            or at 16 kHz.
    """
    with open_file(path, "sound") as file:
        try:
            sound = _read(file.fileno(), seconds)
        except Exception as error:  # libsndfile's own, and what a broken header does to its wrapper
            reason = getattr(error, "error_string", None) or str(error) or type(error).__name__
            raise InputError(
                f"{path}: cannot be decoded as sound ({' '.join(reason.split())}); give a wav, "
                "flac or ogg file."
            ) from error
    if not sound.samples.size:
        raise InputError(f"{path}: holds no sound at all; give at least one sample.")
    return sound


def _read(descriptor: int, seconds: float | None) -> Sound:
    start = os.read(descriptor, 12)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if not _SIGNATURES.match(start):
        raise ValueError("it is neither wav nor flac nor ogg" if start else "it is empty")
    # By its descriptor: libsndfile would go by the suffix of a name, also to raw samples.
    with soundfile.SoundFile(descriptor, closefd=False) as source:
        rate, channels = source.samplerate, source.channels
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise ValueError(
                f"sampled at {rate:,} Hz, and {LOWEST_RATE:,} to {HIGHEST_RATE:,} are read"
            )
        longest = MAX_SAMPLES * min(rate, SAMPLE_RATE) // SAMPLE_RATE
        wanted = longest + 1 if seconds is None else math.ceil(seconds * rate)
        blocks = list(_blocks(source, wanted))
    if sum(map(len, blocks)) > longest:
        raise ValueError(f"more than {longest:,} samples: cut it")
    return Sound(np.concatenate([np.empty(0, np.float32), *blocks]), rate, channels)


def _blocks(source: soundfile.SoundFile, wanted: int) -> Iterator[np.ndarray]:
    several, longest = source.channels > 1, max(1, _BLOCK_VALUES // source.channels)
    while wanted > 0:
        asked = min(wanted, longest)
        block = source.read(asked, dtype="float32", always_2d=True)
        # Infinite samples of either sign have no mean; whoever takes the samples looks for that.
        with np.errstate(invalid="ignore"):
            # In float64, where no sum of float32 samples is too large.
            yield (
                block.mean(axis=1, dtype=np.float64).astype(np.float32) if several else block[:, 0]
            )
        if len(block) < asked:
            return
        wanted -= asked
