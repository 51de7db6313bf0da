"""Colours for masks and categories: the same in every view and on every machine.

Masks: hues step by the golden ratio, so any few consecutive ranks spread over the circle; lightness steps as well, so that
ranks stay apart for eyes that see fewer hues. Colours are made in OKLCH (Ottosson 2020, "A perceptual color space for
image processing"), where equal steps look equal, and brought into sRGB by giving up chroma only.

Categories: twenty colours chosen by hand, no two of them nearer than 0.09 in OKLab; then, of all colours of a grid in OKLCH, always the
one that is farthest from those there are [choice]. The 171 of COCO-Stuff are 0.048 apart, twice what can just be told.
"""

from __future__ import annotations

import functools

import numpy as np

from ovskit.core.records import Float, UInt8

BACKGROUND = (128, 128, 128)  # of the background; no category's colour is as gray

_GOLDEN = (5**0.5 - 1) / 2
_FIRST_HUE = 0.70  # of a turn: a calm blue for the largest mask
_LIGHTNESS = np.array([0.68, 0.84, 0.60, 0.76])
_CHROMA = 0.15
_PERIOD = 1 << 16  # ranks beyond it start again

_CHOSEN = bytes.fromhex(
    "3b7ddd e4572e 2fa84f f2b705 8e4ec6 17b3c1 d6336c 8a5a2b 9bd13c f48fb1"
    "1f5fa8 ffc29b 0f7d6c b7a3f5 a61e4d 7a8b1a 5fd6b0 c9824a e066ff 4a3fd0"
)
_MOST_CATEGORIES = 256  # categories beyond it start again


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
    return _encoded(_linear_rgb(lightness, low, angle))


def category_colours() -> UInt8:
    """sRGB colours of the categories 0 to 255, uint8 (256, 3), no two alike; any first few are far apart. Not to be changed."""
    return _category_colours()


@functools.cache
def _category_colours() -> UInt8:
    lightness, chroma, degrees = np.meshgrid(np.arange(44, 90, 4) / 100, [0.09, 0.14, 0.19, 0.24], np.arange(0, 360, 10), indexing="ij")
    linear = _linear_rgb(lightness.ravel(), chroma.ravel(), np.deg2rad(degrees.ravel()))
    grid = _encoded(linear[_in_gamut(linear)])
    found = [tuple(_CHOSEN[k : k + 3]) for k in range(0, len(_CHOSEN), 3)]
    # In whole numbers: the last bit of a float may differ between machines, and which colour is farthest must not.
    places, taken = _thousandths(grid), _thousandths(np.array(found, np.uint8))
    nearest = ((places[:, None] - taken[None]) ** 2).sum(axis=-1).min(axis=1)
    while len(found) < _MOST_CATEGORIES:
        farthest = int(nearest.argmax())
        found.append(tuple(grid[farthest].tolist()))
        nearest = np.minimum(nearest, ((places - places[farthest]) ** 2).sum(axis=-1))
    return np.array(found, np.uint8)


def _thousandths(rgb: UInt8) -> np.ndarray:
    """OKLab, int64 (n, 3), of sRGB colours."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.linalg.inv(_CONES_TO_RGB).T
    return np.asarray(np.rint(1000 * (np.cbrt(cones) @ np.linalg.inv(_LAB_TO_CONES).T)), np.int64)


def _encoded(linear: Float) -> UInt8:
    """sRGB by its transfer function, IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
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
