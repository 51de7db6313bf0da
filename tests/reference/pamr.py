"""Pixel-adaptive mask refinement as the paper writes it down, in float64: a loop over pixels, over the whole image."""

from __future__ import annotations

import math

import numpy as np


def neighbours(y: int, x: int, height: int, width: int, dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    """The eight at every dilation; those outside the image are on its border."""
    around = [(dy * step, dx * step) for step in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    return [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in around]


def weights(image: np.ndarray, y: int, x: int, dilations: tuple[int, ...]) -> list[float]:
    around = neighbours(y, x, image.shape[0], image.shape[1], dilations)
    values = image.astype(np.float64) / 255
    sigma = np.std([values[p] for p in around] + [values[y, x]] * len(dilations), axis=0, ddof=1)
    affinity = [-float(np.mean(np.abs(values[y, x] - values[p]) / (1e-8 + 0.1 * sigma))) for p in around]
    exponentials = [math.exp(a) for a in affinity]
    return [e / sum(exponentials) for e in exponentials]


def pamr(image: np.ndarray, masks: np.ndarray, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """Beliefs (n, h, w) of ``masks`` (n, h, w)."""
    height, width = image.shape[:2]
    table = {(y, x): weights(image, y, x, dilations) for y in range(height) for x in range(width)}
    beliefs = masks.astype(np.float64)
    for _ in range(iterations):
        new = np.zeros_like(beliefs)
        for (y, x), own in table.items():
            for weight, place in zip(own, neighbours(y, x, height, width, dilations), strict=True):
                new[:, y, x] += weight * beliefs[(slice(None), *place)]
        beliefs = new
    return beliefs
