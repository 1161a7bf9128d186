"""High dynamic range to what screens, overlays and networks expect (ITU-R BT.2100, BT.2408)."""

from __future__ import annotations

from functools import cache

import numpy as np
from av.video.reformatter import ColorTrc

HDR_CURVES = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
"""Names of the curves by what a picture says of itself."""

_WHITE = 203.0  # nits of diffuse white
_PEAK = 1000.0  # nits that are still told apart from brighter ones

# Light of BT.2020's primaries in those of BT.709.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)


def tone_mapped(pixels: np.ndarray, curve: str) -> np.ndarray:
    """Bring a picture to standard dynamic range.

    Light is expressed in units of diffuse white; what is brighter than that is compressed such that
    the colors stay (Reinhard et al., 2002, on the brightest channel).

    Args:
        pixels: (H, W, 3) uint16 RGB of BT.2020's primaries.
        curve: "PQ" or "HLG".

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    light = _light(curve)[pixels]
    if curve == "HLG":
        # A screen of 1,000 nits shows the scene with a gamma of 1.2 on its luminance.
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= (_PEAK / _WHITE) * luminance[..., None] ** np.float32(0.2)
    light = (light @ _TO_BT709.T).clip(min=0)
    brightest = light.max(-1, keepdims=True)
    peak = np.float32(_PEAK / _WHITE)
    light *= (1 + brightest / peak**2) / (1 + brightest)
    return _srgb()[(light.clip(max=1) * 4095 + 0.5).astype(np.uint16)]


@cache
def _light(curve: str) -> np.ndarray:
    """(65536,) float32: PQ's light in units of white, HLG's of the scene from 0 to 1."""
    signal = np.arange(2**16) / (2**16 - 1)
    if curve == "PQ":
        power = signal ** (1 / 78.84375)
        ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return (10_000 / _WHITE * ratio ** (1 / 0.1593017578125)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _srgb() -> np.ndarray:
    """(4096,) uint8, the values of light from 0 to 1."""
    light = np.arange(4096) / 4095
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * values + 0.5).astype(np.uint8)
