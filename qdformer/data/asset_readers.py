"""Decodes cutouts, sounds and backgrounds, or makes the built-in ones; keeps what was used last."""

from functools import lru_cache

import cv2
import numpy as np

from qdformer.data.assets import Asset
from qdformer.data.audio import SAMPLE_RATE, read_waveform
from qdformer.data.builtin_drawings import draw_background, draw_cutout
from qdformer.data.builtin_sounds import synthesize
from qdformer.data.image import read_image
from qdformer.errors import InputError

_SILENCE = 1e-4  # root mean square of full scale
_EDGE_WEIGHTS = (0.25, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.25)  # of the tenths of a second


@lru_cache(maxsize=4096)
def read_cutout(asset: Asset) -> np.ndarray:
    """A cutout trimmed to what is visible of it: (H, W, 4) float32 RGBA, premultiplied, 0 to 255.

    Raises:
        InputError: the file is not a picture with transparency, or nothing in it is visible.
    """
    if asset.path is None:
        rgba = draw_cutout(asset.group, asset.name)
    else:
        data = np.frombuffer(asset.path.read_bytes(), np.uint8)
        bgra = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if bgra is None or bgra.dtype != np.uint8 or bgra.ndim != 3 or bgra.shape[2] != 4:
            raise InputError(
                f"{asset.path}: cannot be read as an 8-bit RGBA picture, which a cutout must be; "
                "restore or remove it"
            )
        rgba = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)
    rows, columns = (np.flatnonzero((rgba[..., 3] > 127).any(axis)) for axis in (1, 0))
    if not rows.size:
        raise InputError(f"{asset.path}: no pixel of this cutout is opaque; remove it")
    rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba


@lru_cache(maxsize=512)
def read_sound(asset: Asset) -> np.ndarray:
    """A recording or noise: (L,) float32, mono, 16 kHz, at least one second (silence is added).

    Raises:
        InputError: the file cannot be decoded.
    """
    sound = read_waveform(asset.path) if asset.path else synthesize(asset.group, asset.name)
    return np.pad(sound, (0, max(SAMPLE_RATE - sound.size, 0)))


@lru_cache(maxsize=64)
def read_background(asset: Asset) -> np.ndarray:
    """A background: (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file cannot be decoded.
    """
    return read_image(asset.path) if asset.path else draw_background(asset.name)


@lru_cache(maxsize=4096)
def loud_starts(asset: Asset) -> np.ndarray:
    """Where the seconds of a recording begin that stand for it.

    Recordings are partly silent, and a second that is labelled as sounding must be heard. The
    energy is weighted down towards both ends of the second, so that no short event is cut there.

    Returns:
        (S,) int64 samples: the starts, on a grid of 0.1 s, whose energy is at least half of the
        loudest one's.

    Raises:
        InputError: the file cannot be decoded, or is silent.
    """
    step = SAMPLE_RATE // 10
    sound = read_sound(asset)
    tenths = np.square(sound[: sound.size // step * step]).reshape(-1, step).sum(1)
    energy = np.convolve(tenths, _EDGE_WEIGHTS, "valid")
    if energy.max() < _SILENCE**2 * SAMPLE_RATE:
        raise InputError(f"{asset.path}: this recording is silent; remove it")
    return step * np.flatnonzero(energy >= energy.max() / 2)


def check_asset(asset: Asset) -> None:
    """Decodes an asset.

    Raises:
        InputError: it cannot be used; see the function that reads its kind.
    """
    _READERS[asset.kind](asset)


_READERS = {
    "cutouts": read_cutout,
    "sounds": loud_starts,
    "noise": loud_starts,
    "backgrounds": read_background,
}
