"""Objects and backgrounds that are drawn, so that a data set can be composed without any download.

Every class of `qdformer.synthetic.sounds` has a drawing. Variants differ in colors, proportions
and tilt. Coordinates are fractions of the canvas, x to the right and y down.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

CUTOUT_SIZE = 128
CUTOUT_NAMES = tuple(f"{variant:02d}" for variant in range(20))
BACKGROUND_NAMES = tuple(f"{variant:02d}" for variant in range(24))
_BACKGROUND_SIZE = 256
_CANVAS = 4 * CUTOUT_SIZE
_OUTLINE = (36, 36, 36, 255)

Color = tuple[float, float, float]
Draw = np.random.Generator


def draw_cutout(class_name: str, name: str) -> np.ndarray:
    """Draws one variant of a built-in class.

    Args:
        class_name: a key of ``DRAWN_CLASSES``.
        name: the variant, one of ``CUTOUT_NAMES``.

    Returns:
        (128, 128, 4) uint8 RGBA, anti-aliased; the same for the same names.
    """
    rng = _generator(class_name, name)
    canvas = _Canvas()
    _DRAWINGS[class_name](canvas, rng)
    return canvas.finish(tilt=rng.uniform(-10, 10))


def draw_background(name: str) -> np.ndarray:
    """Draws a soft texture over a gradient in muted tones: (256, 256, 3) uint8 RGB."""
    rng = _generator("background", name)
    size = _BACKGROUND_SIZE
    first, second = (
        np.array(_hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.3), rng.uniform(0.35, 0.8)))
        for _ in range(2)
    )
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, size), np.linspace(-0.7, 0.7, size))
    ramp = np.clip(0.5 + x * np.cos(angle) + y * np.sin(angle), 0, 1)[..., None]
    picture = first * (1 - ramp) + second * ramp
    for cells, strength in ((3, 30), (8, 12), (32, 4)):
        coarse = rng.uniform(-1, 1, (cells, cells, 1)) + 0.3 * rng.uniform(-1, 1, (cells, cells, 3))
        picture += strength * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


class _Canvas:
    """Draws in fractions of its side, four times too large; `finish` makes the cutout of it."""

    def __init__(self) -> None:
        self.rgba = np.zeros((_CANVAS, _CANVAS, 4), np.uint8)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, color: Color, angle: float = 0
    ) -> None:
        center, axes = self._pixel((x, y)), self._pixel((rx, ry))
        cv2.ellipse(self.rgba, center, axes, angle, 0, 360, (*color, 255), -1)

    def ring(self, x: float, y: float, radius: float, color: Color, width: float) -> None:
        cv2.circle(
            self.rgba,
            self._pixel((x, y)),
            round(radius * _CANVAS),
            (*color, 255),
            round(width * _CANVAS),
        )

    def polygon(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        corners = np.array([self._pixel(point) for point in points])
        cv2.fillPoly(self.rgba, [corners], (*color, 255))

    def line(
        self,
        points: Any,
        color: Color,
        width: float,
    ) -> None:
        corners = np.array([self._pixel(point) for point in points])
        cv2.polylines(self.rgba, [corners], False, (*color, 255), max(round(width * _CANVAS), 1))

    def finish(self, tilt: float) -> np.ndarray:
        """Tilts (degrees), outlines, shades from the top left, and scales down."""
        turn = cv2.getRotationMatrix2D((_CANVAS / 2, _CANVAS / 2), tilt, 0.84)
        rgba = cv2.warpAffine(self.rgba, turn, (_CANVAS, _CANVAS), flags=cv2.INTER_NEAREST)
        pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
        outline = cv2.dilate(rgba[..., 3], pen) > rgba[..., 3]
        rgba[outline] = _OUTLINE
        # Colors are 0 where nothing is, hence premultiplied, as scaling needs them.
        small = cv2.resize(rgba, (CUTOUT_SIZE,) * 2, interpolation=cv2.INTER_AREA)
        alpha = small[..., 3:].astype(np.float32)
        diagonal = np.linspace(0, 0.5, CUTOUT_SIZE, dtype=np.float32)
        light = 1.14 - 0.34 * np.add.outer(diagonal, diagonal)[..., None]
        color = small[..., :3] * light * 255 / np.maximum(alpha, 1)
        return np.concatenate([np.minimum(color, 255), alpha], 2).astype(np.uint8)

    @staticmethod
    def _pixel(point: tuple[float, float]) -> tuple[int, int]:
        return round(point[0] * _CANVAS), round(point[1] * _CANVAS)


def _bell(canvas: _Canvas, rng: Draw) -> None:
    color = _hsv(rng.uniform(0.09, 0.14), rng.uniform(0.55, 0.85), rng.uniform(0.8, 0.98))
    dark, light = _shade(color, 0.65), _shade(color, 1.25)
    flare, width = rng.uniform(0.14, 0.2), rng.uniform(0.19, 0.24)
    canvas.ring(0.5, 0.13, 0.06, dark, 0.035)
    canvas.ellipse(0.5, 0.84, 0.08, 0.08, dark)
    down = np.linspace(0, 1, 30)
    half = width * np.minimum(1, np.sqrt(down * 2.6)) + flare * down**3
    left = [(0.5 - w, 0.18 + 0.6 * s) for s, w in zip(down, half, strict=True)]
    right = [(1 - x, y) for x, y in reversed(left)]
    canvas.polygon(left + right, color)
    canvas.ellipse(0.5, 0.78, half[-1], 0.05, dark)
    canvas.line([(0.5 - half[21], 0.62), (0.5 + half[21], 0.62)], dark, 0.022)
    canvas.ellipse(0.4, 0.4, 0.035, 0.13, light, 8)


def _bird(canvas: _Canvas, rng: Draw) -> None:
    color = _hsv(rng.uniform(0.52, 0.62), rng.uniform(0.55, 0.85), rng.uniform(0.75, 0.98))
    dark, belly = _shade(color, 0.65), _hsv(0.1, rng.uniform(0.1, 0.4), 0.98)
    plump, beak = rng.uniform(0.22, 0.27), _hsv(rng.uniform(0.06, 0.12), 0.9, 0.98)
    canvas.line([(0.46, 0.75), (0.46, 0.92), (0.4, 0.92)], beak, 0.025)
    canvas.line([(0.56, 0.75), (0.56, 0.92), (0.5, 0.92)], beak, 0.025)
    canvas.polygon([(0.7, 0.55), (0.97, rng.uniform(0.38, 0.6)), (0.92, 0.7), (0.68, 0.72)], dark)
    canvas.ellipse(0.53, 0.6, 0.28, plump, color, 10)
    canvas.ellipse(0.42, 0.66, 0.15, plump * 0.65, belly, 25)
    canvas.polygon([(0.16, 0.29), (0.02, 0.36), (0.17, 0.41)], beak)
    canvas.ellipse(0.31, 0.34, 0.17, 0.16, color)
    canvas.ellipse(0.26, 0.31, 0.045, 0.045, (255, 255, 255))
    canvas.ellipse(0.25, 0.31, 0.025, 0.025, (20, 20, 30))
    canvas.ellipse(0.62, 0.56, 0.17, rng.uniform(0.09, 0.12), dark, 20)


def _clock(canvas: _Canvas, rng: Draw) -> None:
    rim = _hsv(rng.uniform(0.9, 1.0), rng.uniform(0.6, 0.85), rng.uniform(0.6, 0.9))
    face, ink = _hsv(0.12, rng.uniform(0.02, 0.15), 0.97), (40, 40, 48)
    canvas.line([(0.28, 0.78), (0.18, 0.95)], _shade(rim, 0.6), 0.06)
    canvas.line([(0.72, 0.78), (0.82, 0.95)], _shade(rim, 0.6), 0.06)
    canvas.ellipse(0.24, 0.16, 0.13, 0.1, _shade(rim, 0.8), -40)
    canvas.ellipse(0.76, 0.16, 0.13, 0.1, _shade(rim, 0.8), 40)
    canvas.ellipse(0.5, 0.52, 0.4, 0.4, rim)
    radius = rng.uniform(0.29, 0.33)
    canvas.ellipse(0.5, 0.52, radius, radius, face)
    for hour in range(12):
        way = np.array([np.sin(np.pi * hour / 6), -np.cos(np.pi * hour / 6)])
        ends = [(0.5, 0.52) + way * radius * reach for reach in (0.8, 0.92)]
        canvas.line(ends, ink, 0.02)
    for length, width in ((0.5, 0.045), (0.75, 0.03)):
        angle = rng.uniform(0, 2 * np.pi)
        tip = (0.5 + length * radius * np.sin(angle), 0.52 - length * radius * np.cos(angle))
        canvas.line([(0.5, 0.52), tip], ink, width)
    canvas.ellipse(0.5, 0.52, 0.03, 0.03, rim)


def _drum(canvas: _Canvas, rng: Draw) -> None:
    color = _hsv(rng.uniform(0.0, 0.04), rng.uniform(0.75, 0.95), rng.uniform(0.65, 0.9))
    rim, skin = _hsv(0.12, 0.5, rng.uniform(0.8, 0.95)), _hsv(0.11, 0.12, 0.97)
    half, bottom = rng.uniform(0.36, 0.42), rng.uniform(0.76, 0.84)
    canvas.ellipse(0.5, bottom, half, 0.12, rim)
    canvas.ellipse(0.5, bottom - 0.04, half, 0.12, color)
    body = [(0.5 - half, 0.4), (0.5 + half, 0.4), (0.5 + half, bottom - 0.04)]
    canvas.polygon([*body, (0.5 - half, bottom - 0.04)], color)
    turns = np.linspace(0.5 - half, 0.5 + half, 9)
    ropes = [(x, 0.46 if i % 2 else bottom + 0.02) for i, x in enumerate(turns)]
    canvas.line(ropes, skin, 0.022)
    canvas.ellipse(0.5, 0.42, half, 0.14, rim)
    canvas.ellipse(0.5, 0.38, half, 0.14, skin)
    wood = _hsv(0.08, 0.55, rng.uniform(0.6, 0.8))
    for start, end in (((0.12, 0.1), (0.48, 0.36)), ((0.88, 0.08), (0.56, 0.38))):
        canvas.line([start, end], wood, 0.04)
        canvas.ellipse(end[0], end[1], 0.04, 0.035, _shade(wood, 0.8))


def _guitar(canvas: _Canvas, rng: Draw) -> None:
    color = _hsv(rng.uniform(0.05, 0.085), rng.uniform(0.65, 0.9), rng.uniform(0.6, 0.85))
    dark, string = _shade(color, 0.45), (235, 228, 210)
    lower, upper = rng.uniform(0.24, 0.27), rng.uniform(0.17, 0.2)
    spine = np.array([[0.36, 0.7], [0.5, 0.49], [0.81, 0.17]])
    canvas.line(spine[1:], dark, 0.085)
    canvas.line([(0.77, 0.21), (0.86, 0.1)], _shade(dark, 0.8), 0.12)
    canvas.ellipse(spine[0, 0], spine[0, 1], lower, lower * 0.95, color, -45)
    canvas.ellipse(spine[1, 0], spine[1, 1], upper, upper, color, -45)
    canvas.ellipse(0.45, 0.57, 0.085, 0.085, dark)
    canvas.line([(0.27, 0.7), (0.37, 0.8)], dark, 0.045)
    for offset in (-0.02, 0.0, 0.02):
        canvas.line([(0.32 + offset, 0.75 + offset), (0.8 + offset, 0.18 + offset)], string, 0.007)


def _helicopter(canvas: _Canvas, rng: Draw) -> None:
    color = _hsv(rng.uniform(0.25, 0.36), rng.uniform(0.4, 0.75), rng.uniform(0.5, 0.8))
    dark, glass = _shade(color, 0.6), _hsv(0.55, rng.uniform(0.2, 0.4), 0.95)
    gray = (70, 74, 82)
    height = rng.uniform(0.19, 0.23)
    canvas.polygon([(0.5, 0.42), (0.92, 0.4), (0.92, 0.48), (0.5, 0.62)], color)
    canvas.polygon([(0.86, 0.42), (0.9, 0.24), (0.98, 0.24), (0.96, 0.46)], dark)
    canvas.line([(0.37, 0.22), (0.37, 0.36)], gray, 0.05)
    canvas.line([(0.02, 0.21), (0.74, 0.21)], gray, 0.045)
    canvas.line([(0.26, 0.7), (0.22, 0.86)], gray, 0.03)
    canvas.line([(0.5, 0.7), (0.54, 0.86)], gray, 0.03)
    canvas.line([(0.08, 0.83), (0.12, 0.87), (0.68, 0.87)], gray, 0.04)
    canvas.ellipse(0.36, 0.54, 0.29, height, color)
    canvas.ellipse(0.23, 0.5, 0.125, height * 0.62, glass)
    canvas.line([(0.25, 0.66), (0.6, 0.64)], dark, 0.03)


def _panflute(canvas: _Canvas, rng: Draw) -> None:
    color = _hsv(rng.uniform(0.12, 0.16), rng.uniform(0.3, 0.55), rng.uniform(0.85, 0.98))
    dark, band = _shade(color, 0.6), _hsv(rng.uniform(0.75, 0.85), 0.6, rng.uniform(0.5, 0.75))
    pipes = int(rng.integers(6, 9))
    edges, slope = np.linspace(0.1, 0.9, pipes + 1), rng.uniform(0.28, 0.42)
    for count, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        foot = 0.92 - slope * count / (pipes - 1)
        tone = _shade(color, 1.0 if count % 2 else 0.88)
        canvas.polygon([(left, 0.14), (right, 0.14), (right, foot), (left, foot)], tone)
        canvas.ellipse((left + right) / 2, foot, (right - left) / 2, 0.025, tone)
        canvas.ellipse((left + right) / 2, 0.14, (right - left) / 2, 0.03, dark)
        canvas.line([(right, 0.16), (right, foot - 0.01)], dark, 0.008)
    canvas.polygon([(0.08, 0.3), (0.92, 0.3), (0.92, 0.39), (0.08, 0.39)], band)


def _siren(canvas: _Canvas, rng: Draw) -> None:
    hue = rng.choice([0.58, 0.66, 0.72]) + rng.uniform(-0.03, 0.03)
    color = _hsv(hue, rng.uniform(0.7, 0.9), rng.uniform(0.8, 1.0))
    light, gray = _hsv(hue, 0.25, 1.0), (int(rng.integers(90, 130)),) * 3
    width = rng.uniform(0.25, 0.3)
    canvas.ellipse(0.5, 0.46, width, rng.uniform(0.32, 0.36), color)
    glass = [(0.5 - width, 0.46), (0.5 + width, 0.46), (0.53 + width, 0.72), (0.47 - width, 0.72)]
    canvas.polygon(glass, color)
    canvas.ellipse(0.5, 0.5, 0.09, 0.13, light)
    canvas.ellipse(0.36, 0.33, 0.035, 0.1, (255, 255, 255), 25)
    canvas.polygon([(0.14, 0.72), (0.86, 0.72), (0.92, 0.92), (0.08, 0.92)], gray)
    canvas.polygon([(0.14, 0.72), (0.86, 0.72), (0.88, 0.78), (0.12, 0.78)], _shade(gray, 1.5))


_DRAWINGS: dict[str, Callable[[_Canvas, Draw], None]] = {
    "bell": _bell,
    "bird": _bird,
    "clock": _clock,
    "drum": _drum,
    "guitar": _guitar,
    "helicopter": _helicopter,
    "panflute": _panflute,
    "siren": _siren,
}
DRAWN_CLASSES = tuple(_DRAWINGS)


def _generator(class_name: str, name: str) -> Draw:
    return np.random.default_rng(zlib.crc32(f"{class_name}/{name}".encode()))


def _hsv(hue: float, saturation: float, value: float) -> Color:
    """RGB in 0..255 of hue, saturation and value in 0..1."""
    pixel = np.array([[[hue % 1.0 * 360, saturation, value]]], np.float32)
    red, green, blue = 255 * cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return float(red), float(green), float(blue)


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(255.0, factor * value) for value in color)
    return red, green, blue
