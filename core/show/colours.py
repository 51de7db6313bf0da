"""Colours for masks: distinct for neighbours in rank, the same in every view and on every machine.

Hues step by the golden ratio, so any few consecutive ranks spread over the circle; lightness steps as well, so that
ranks stay apart for eyes that see fewer hues. Colours are made in OKLCH (Ottosson 2020, "A perceptual color space for
image processing"), where equal steps look equal, and brought into sRGB by giving up chroma only.
"""

from __future__ import annotations

import numpy as np

from ovskit.core.records import Float, UInt8

_GOLDEN = (5**0.5 - 1) / 2
_FIRST_HUE = 0.70  # of a turn: a calm blue for the largest mask
_LIGHTNESS = np.array([0.68, 0.84, 0.60, 0.76])
_CHROMA = 0.15
_PERIOD = 1 << 16  # ranks beyond it start again


def colours(count: int) -> UInt8:
    """sRGB colours of ranks 0 … ``count`` − 1, uint8 (count, 3)."""
    rank = np.arange(count, dtype=np.float64) % _PERIOD
    angle = 2 * np.pi * ((_FIRST_HUE + rank * _GOLDEN) % 1)
    lightness = _LIGHTNESS[rank.astype(np.int64) % len(_LIGHTNESS)]
    low, high = np.zeros(count), np.full(count, _CHROMA)
    fits = _in_gamut(_linear_rgb(lightness, high, angle))
    low[fits] = high[fits]
    for _ in range(12):
        middle = (low + high) / 2
        fits = _in_gamut(_linear_rgb(lightness, middle, angle))
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    linear = np.clip(_linear_rgb(lightness, low, angle), 0, 1)
    # The transfer function of sRGB, IEC 61966-2-1.
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


def _linear_rgb(lightness: Float, chroma: Float, angle: Float) -> Float:
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)
    cones = (lab @ _LAB_TO_CONES.T) ** 3
    rgb: Float = cones @ _CONES_TO_RGB.T
    return rgb


def _in_gamut(rgb: Float) -> np.ndarray:
    return np.asarray(((rgb >= 0) & (rgb <= 1)).all(axis=-1))


_LAB_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
