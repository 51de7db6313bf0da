"""Changes of colour on bytes: light, contrast, saturation, hue, grey, blur. What the augmentations of several methods share.

Images are RGB, (h, w, 3) uint8, in and out; everything is rounded and clipped after each change.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ovskit.core.records import UInt8

_LEVELS = np.arange(256, dtype=np.float32)
_SOLAR = np.where(_LEVELS < 128, _LEVELS, 255 - _LEVELS).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Jitter:
    """By how much colours change at most: factors of light, contrast and saturation around 1, ``hue`` in turns of the circle."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1


def jittered(view: UInt8, rng: np.random.Generator, limits: Jitter) -> UInt8:
    """Brightness, contrast, saturation and hue changed, in a random order and clipped after each."""
    brightness = 1 + rng.uniform(-limits.brightness, limits.brightness)
    contrast = 1 + rng.uniform(-limits.contrast, limits.contrast)
    saturation = 1 + rng.uniform(-limits.saturation, limits.saturation)
    hue = rng.uniform(-limits.hue, limits.hue)
    for change in rng.permutation(4):
        if change == 0:
            view = np.asarray(cv2.LUT(view, _table(brightness * _LEVELS)), np.uint8)
        elif change == 1:
            mean = float(_luma(view).mean())
            view = np.asarray(cv2.LUT(view, _table(mean + contrast * (_LEVELS - mean))), np.uint8)
        elif change == 2:
            view = np.asarray(cv2.addWeighted(view, saturation, grey(view), 1 - saturation, 0), np.uint8)
        else:
            view = turn_hue(view, hue)
    return view


def turn_hue(view: UInt8, turn: float) -> UInt8:
    """RGB (h, w, 3) with all hues moved by ``turn`` of the colour circle; in bytes, so colours come back but for some levels of 255."""
    hsv = np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL), np.uint8)
    tables = np.stack([(_LEVELS + round(turn * 256)) % 256, _LEVELS, _LEVELS], -1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB_FULL), np.uint8)


def grey(view: UInt8) -> UInt8:
    """The luma of each pixel (Rec. 601) in all three channels."""
    return np.asarray(cv2.cvtColor(_luma(view), cv2.COLOR_GRAY2RGB), np.uint8)


def blurred(view: UInt8, sigma: float) -> UInt8:
    """Gaussian blur of σ ``sigma`` pixels; borders are mirrored."""
    return np.asarray(cv2.GaussianBlur(view, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def solarised(view: UInt8) -> UInt8:
    """Levels from 128 up inverted."""
    return np.asarray(cv2.LUT(view, _SOLAR), np.uint8)


def _table(values: np.ndarray) -> UInt8:
    return np.clip(values, 0, 255).round().astype(np.uint8)


def _luma(view: UInt8) -> UInt8:
    return np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), np.uint8)
