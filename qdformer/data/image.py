"""Frames and masks from image files.

Stored pixels are taken as they lie: an EXIF orientation is not applied, because the masks were
drawn on the stored grid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageChops

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
    return _decode(path, _rgb)


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
        brightness = _decode(path, _brightest_channel)
        threshold = 127 if brightness.max(initial=0) > 1 else 0
        return (brightness > threshold).view(np.uint8)
    if label_format == "index":
        return _read_index_map(path)
    assert label_format == "palette" and palette is not None, (label_format, palette)
    return _look_up(_decode(path, _rgb), np.asarray(palette, np.uint8))


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
    colours, wanted = _as_integers(palette[None]), _as_integers(pixels)
    # Label maps are made of long runs of one colour, of which only the first pixel is looked up.
    starts = np.append(0, np.flatnonzero(wanted[1:] != wanted[:-1]) + 1)[: wanted.size]
    run_colours = wanted[starts]
    order = np.argsort(colours)
    found = order[np.searchsorted(colours, run_colours, sorter=order).clip(max=len(order) - 1)]
    labels = np.where(colours[found] == run_colours, found, IGNORE_LABEL).astype(np.uint8)
    return np.repeat(labels, np.diff(starts, append=wanted.size)).reshape(pixels.shape[:2])


def _as_integers(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H * W,) uint32, a number for each colour."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA).view(np.uint32).reshape(-1)


def _rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _brightest_channel(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L"):
        return image.convert("L")
    return reduce(ImageChops.lighter, _rgb(image).split())


def _decode(
    path: str | Path, convert: Callable[[Image.Image], Image.Image] = lambda image: image
) -> np.ndarray:
    # Pillow's decoders fail on broken files with many types (OSError, SyntaxError, ValueError,
    # EOFError, zlib.error, DecompressionBombError, ...); all of them mean the same to the user.
    try:
        with Image.open(path) as image:
            return np.array(convert(image))
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
