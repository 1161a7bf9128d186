"""Decodes cutouts, sounds and backgrounds, or makes the built-in ones; keeps what was used last."""

from functools import partial

import numpy as np

from qdformer.audio.log_mel import SAMPLE_RATE, read_waveform
from qdformer.errors import InputError
from qdformer.io.image import read_image, read_rgba
from qdformer.synthetic.array_cache import ArrayCache
from qdformer.synthetic.assets import Asset
from qdformer.synthetic.drawings import draw_background, draw_cutout
from qdformer.synthetic.sounds import synthesize

FADE = 0.01  # seconds at both ends of a second that is heard

_SILENCE = 1e-4  # root mean square of full scale
_EDGE_WEIGHTS = (0.25, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.25)  # of the tenths of a second

_kept = partial(ArrayCache, max_bytes=2**29)  # for each of the four functions


@_kept
def read_cutout(asset: Asset) -> np.ndarray:
    """A cutout trimmed to what is visible of it: (H, W, 4) float32 RGBA, premultiplied, 0 to 255.

    Raises:
        InputError: the file is not a picture with transparency, or nothing in it is visible.
    """
    rgba = read_rgba(asset.path) if asset.path else draw_cutout(asset.group, asset.name)
    rows, columns = (np.flatnonzero((rgba[..., 3] > 127).any(axis)) for axis in (1, 0))
    if not rows.size:
        raise InputError(f"{asset.path}: no pixel of this cutout is opaque; remove it")
    rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba


@_kept
def read_sound(asset: Asset) -> np.ndarray:
    """A recording or noise: (L,) float32, mono, 16 kHz, at least one second (silence is added).

    Raises:
        InputError: the file cannot be decoded.
    """
    sound = read_waveform(asset.path) if asset.path else synthesize(asset.group, asset.name)
    return np.pad(sound, (0, max(SAMPLE_RATE - sound.size, 0)))


@_kept
def read_background(asset: Asset) -> np.ndarray:
    """A background: (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file cannot be decoded.
    """
    return read_image(asset.path) if asset.path else draw_background(asset.name)


@_kept
def loud_starts(asset: Asset) -> np.ndarray:
    """Where the seconds of a recording begin that stand for it.

    Recordings are partly silent, and a second that is labeled as sounding must be heard. The
    energy is weighted down toward both ends of the second, so that no short event is cut there.

    Returns:
        (S,) int64 samples: the starts, on a grid of 0.1 s, whose energy is at least half of the
        loudest one's.

    Raises:
        InputError: the file cannot be decoded, is silent or absurdly loud.
    """
    step, fade = SAMPLE_RATE // 10, int(FADE * SAMPLE_RATE)
    sound = read_sound(asset)
    with np.errstate(over="ignore"):
        squares = np.square(sound[: sound.size // step * step]).reshape(-1, step)
        tenths = squares.sum(1)
    if not np.isfinite(tenths).all():
        raise InputError(f"{asset.path}: this recording is far beyond full scale; remove it")
    energy = np.convolve(tenths, _EDGE_WEIGHTS, "valid")
    starts = np.flatnonzero(energy >= energy.max() / 2)
    # What the fades leave of the two tenths at the ends, and the tenths between them.
    first, last = squares[starts, fade:].sum(1), squares[starts + 9, :-fade].sum(1)
    heard = first + np.convolve(tenths, np.ones(8), "valid")[starts + 1] + last
    starts = starts[heard >= _SILENCE**2 * SAMPLE_RATE]
    if not starts.size:
        raise InputError(f"{asset.path}: this recording is silent; remove it")
    return step * starts


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
