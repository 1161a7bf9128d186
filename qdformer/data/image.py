"""Frames and masks from image files.

Stored pixels are taken as they lie: an EXIF orientation is not applied, because the masks were
drawn on the stored grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from qdformer.errors import InputError

IGNORE_LABEL = 255

LabelFormat = Literal["binary", "index", "palette"]


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture.

    Args:
        path: a file of any format that Pillow reads.

    Returns:
        (H, W, 3) uint8, RGB. Grey pictures are repeated, an alpha channel is dropped.

    Raises:
        InputError: the file is missing or cannot be decoded.
    """
    return _decode(path, "RGB")


def read_size(path: str | Path) -> tuple[int, int]:
    """Reads (height, width) in pixels from the header of an image file, without decoding it.

    Raises:
        InputError: the file is missing or is no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error) from error


def read_label_map(
    path: str | Path, label_format: LabelFormat, palette: np.ndarray | None = None
) -> np.ndarray:
    """Reads a mask as a map of labels.

    Args:
        path: an image file without lossy compression (the data sets use png).
        label_format: what the pixels mean.
            ``"binary"``: foreground (1) is where the brightest channel of the visible colour is
            above 127. A file in which nothing is brighter than 1 holds the labels 0 and 1
            themselves. This reads 0/255, 0/1, 1-bit, grey, palette and RGB files alike, and never
            dithers.
            ``"index"``: the stored grey value or palette index is the class, 255 is ignored.
            ``"palette"``: the visible colour is looked up in ``palette``.
        palette: (num_classes, 3) RGB in 0..255, for ``"palette"`` only.

    Returns:
        (H, W) uint8. A colour that is not in the palette becomes 255, which is ignored.

    Raises:
        InputError: the file is missing, cannot be decoded, or holds colours where one index for
            each pixel was expected.
    """
    if label_format == "binary":
        brightness = _decode(path, "RGB").max(axis=2)
        threshold = 127 if brightness.max(initial=0) > 1 else 0
        return (brightness > threshold).astype(np.uint8)
    if label_format == "index":
        return _read_index_map(path)
    assert label_format == "palette" and palette is not None, (label_format, palette)
    return _look_up(_decode(path, "RGB"), np.asarray(palette))


def _read_index_map(path: str | Path) -> np.ndarray:
    pixels = _decode(path)
    if pixels.ndim == 3 and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.max(initial=0) > 255:
        raise InputError(
            f"{path}: a mask of class indices must have one channel of 8 bits, found an array of "
            f"shape {pixels.shape} and type {pixels.dtype}; save it as grey or palette png."
        )
    return pixels.astype(np.uint8)


def _look_up(pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    # One integer for a colour makes the look-up a binary search in the sorted palette.
    place = np.array([1 << 16, 1 << 8, 1])
    colours = palette.astype(np.int64) @ place
    order = np.argsort(colours)
    wanted = pixels.astype(np.int64) @ place
    found = order[np.searchsorted(colours, wanted, sorter=order).clip(max=len(order) - 1)]
    return np.where(colours[found] == wanted, found, IGNORE_LABEL).astype(np.uint8)


def _decode(path: str | Path, mode: str | None = None) -> np.ndarray:
    # Pillow's decoders fail on broken files with many types (OSError, SyntaxError, ValueError,
    # EOFError, zlib.error, DecompressionBombError, ...); all of them mean the same to the user.
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such image file; check the data set's folder.")
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path}: cannot be decoded as an image ({reason}); restore the file or take its clip "
        "off the list."
    )
