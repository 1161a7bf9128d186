"""Frames and masks from png and jpeg files.

Stored pixels are taken as they lie: an EXIF orientation is not applied, because the masks were
drawn on the stored grid. Files may come from anywhere: sizes are checked before anything is
decoded, and no other decoder is tried, since some start programs or allocate what a header claims.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from qdformer.errors import InputError
from qdformer.io.frame_annotation import FrameAnnotation
from qdformer.io.open_file import MAX_PIXELS, open_file

IGNORE_LABEL = 255

MAX_BYTES = 2**28
"""The greatest image file that is read."""

# A progressive jpeg goes over all of its pixels in every scan, for which a few bytes are enough.
_MAX_SCANNED_PIXELS = 2**31

_DECODERS = {b"\x89PNG": PngImageFile, b"\xff\xd8\xff": JpegImageFile}

LabelFormat = Literal["binary", "index", "palette", "coco"]


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture.

    Args:
        path: a png or jpeg file, whatever its name; of an animated one the first picture is taken.

    Returns:
        (H, W, 3) uint8, RGB. Gray pictures are repeated, an alpha channel is dropped, of 16 bits
        the upper 8 are taken.

    Raises:
        InputError: the file is missing, cannot be decoded or has more than ``MAX_PIXELS``.
    """
    return _decode(path, _rgb)


def read_rgba(path: str | Path) -> np.ndarray:
    """Reads a picture with transparency: (H, W, 4) uint8 RGBA.

    Raises:
        InputError: as :func:`read_image`, or the file does not say what is transparent.
    """
    return _decode(path, _rgba)


def read_size(path: str | Path) -> tuple[int, int]:
    """Reads (height, width) in pixels from the header of an image file, without decoding it.

    Raises:
        InputError: the file is missing, is no image or has more than ``MAX_PIXELS``.
    """
    with _opened(path, header_only=True) as image:
        return image.height, image.width


def read_label_map(
    path: str | Path | FrameAnnotation, label_format: LabelFormat, palette: np.ndarray | None = None
) -> np.ndarray:
    """Reads a mask as a map of labels.

    Args:
        path: a file without lossy compression (png), or for ``"coco"`` what a file of several
            frames' annotations says of one.
        label_format: what the pixels mean.
            ``"binary"``: foreground (1) is where the brightest channel of the visible color is
            above 127. A file in which nothing is that bright holds labels or dark colors:
            foreground is then what is not black. This reads 0/255, 0/1, object ids, 1-bit, gray,
            palette and RGB files alike, and never dithers.
            ``"index"``: the stored gray value or palette index is the class, 255 is ignored.
            ``"palette"``: the visible color is looked up in ``palette``.
            ``"coco"``: see :class:`~qdformer.io.frame_annotation.FrameAnnotation`.
        palette: (num_classes, 3) RGB in 0..255, for ``"palette"`` only.

    Returns:
        (H, W) uint8. A color that is not in the palette becomes 255, which is ignored.

    Raises:
        InputError: as :func:`read_image`, or the file holds colors where one index for each pixel
            was expected.
    """
    if isinstance(path, FrameAnnotation):
        return path.label_map()
    if label_format == "binary":
        brightness = read_brightness(path)
        threshold = 127 if brightness.max(initial=0) > 127 else 0
        return (brightness > threshold).view(np.uint8)
    if label_format == "index":
        return _read_index_map(path)
    assert label_format == "palette" and palette is not None, (label_format, palette)
    return _look_up(_decode(path, _rgb), np.asarray(palette, np.uint8))


def read_brightness(path: str | Path) -> np.ndarray:
    """Reads the brightest channel of each pixel's visible color: (H, W) uint8.

    Raises:
        InputError: as :func:`read_image`.
    """
    return _decode(path, _brightest_channel)


def _read_index_map(path: str | Path) -> np.ndarray:
    pixels = _decode(path)
    if pixels.ndim == 3 and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.max(initial=0) > 255:
        raise InputError(
            f"{path}: a mask of class indices must have one channel of 8 bits, found an array of "
            f"shape {pixels.shape} and type {pixels.dtype}; save it as gray or palette png."
        )
    return pixels.astype(np.uint8)


def _look_up(pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    colors, wanted = _as_integers(palette[None]), _as_integers(pixels)
    # Label maps are made of long runs of one color, of which only the first pixel is looked up.
    starts = np.append(0, np.flatnonzero(wanted[1:] != wanted[:-1]) + 1)[: wanted.size]
    run_colors = wanted[starts]
    order = np.argsort(colors)
    found = order[np.searchsorted(colors, run_colors, sorter=order).clip(max=len(order) - 1)]
    labels = np.where(colors[found] == run_colors, found, IGNORE_LABEL).astype(np.uint8)
    return np.repeat(labels, np.diff(starts, append=wanted.size)).reshape(pixels.shape[:2])


def _as_integers(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H * W,) uint32, a number for each color."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA).view(np.uint32).reshape(-1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # gray of 16 bits, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _rgba(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        raise ValueError("it has no alpha channel, as a cutout must")
    return image.convert("RGBA")


def _brightest_channel(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("1", "L", "I")):
        return image.convert("L")
    return reduce(ImageChops.lighter, image.convert("RGB").split())


def _decode(
    path: str | Path, convert: Callable[[Image.Image], Image.Image] = lambda image: image
) -> np.ndarray:
    with _opened(path) as image:
        return np.array(convert(image))


@contextmanager
def _opened(path: str | Path, header_only: bool = False) -> Iterator[ImageFile]:
    """An image whose size is allowed; names the file in every failure."""
    with open_file(path, "image", MAX_BYTES) as file:
        # Pillow's decoders fail on broken files with many types (OSError, SyntaxError, ValueError,
        # EOFError, zlib.error, struct.error, ...); all of them mean the same to the user.
        try:
            # Of a file itself, Pillow would ask for as many bytes as its chunks claim to have.
            source: Any = file if header_only else io.BytesIO(file.read())
            image = _decoder(source)(source)
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels, and up to {MAX_PIXELS:,} are read"
                )
            if isinstance(image, JpegImageFile) and not header_only:
                _check_scans(source.getvalue(), image)
            yield image
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{path}: cannot be decoded as an image ({reason}); restore the file or take its "
                "clip off the list."
            ) from error


def _decoder(source: BinaryIO) -> type[ImageFile]:
    start = source.read(4)
    source.seek(0)
    for signature, decoder in _DECODERS.items():
        if start.startswith(signature):
            return decoder
    raise ValueError("it is neither png nor jpeg" if start else "it is empty")


def _check_scans(data: bytes, image: ImageFile) -> None:
    scans = data.count(b"\xff\xda")
    if scans * image.width * image.height > _MAX_SCANNED_PIXELS:
        raise ValueError(f"{scans} scans, which are too many for its size")


def write_image(path: str | Path, picture: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB, or gray (H, W), in the format that the path's ending names."""
    cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)
