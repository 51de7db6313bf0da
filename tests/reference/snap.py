"""Superpixels and ``snap`` as their definitions say: components as lists of pixels, every pixel of every mask by itself.

It shares nothing with ``ovskit.core.models.superpixels`` and ``ovskit.core.refine.snap`` but the order of equal edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


def smoothed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """``image`` (h, w, 3) by [1 6 1] ⊗ [1 6 1], which sums to 64, with a repeated border."""
    height, width = image.shape[:2]
    out = np.zeros(image.shape, np.int64)
    for y in range(height):
        for x in range(width):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    weight = (6 if dy == 0 else 1) * (6 if dx == 0 else 1)
                    out[y, x] += weight * image[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)].astype(np.int64)
    return out


def felzenszwalb(image: npt.NDArray[np.uint8], scale: float, smallest: int) -> Labels:
    """The partition (h, w) of Felzenszwalb and Huttenlocher, IJCV 2004, Algorithm 1, with labels in no particular order."""
    height, width = image.shape[:2]
    colours = smoothed(image)
    edges = []
    for x in range(width):
        for y in range(height):
            for way, (dx, dy) in enumerate(((0, 1), (1, -1), (1, 0), (1, 1))):
                if x + dx < width and 0 <= y + dy < height:
                    distance = math.sqrt(int(((colours[y, x] - colours[y + dy, x + dx]) ** 2).sum()))
                    edges.append((math.floor(distance + 0.5), x, y, way, (y, x), (y + dy, x + dx)))
    edges.sort()
    component = {(y, x): [(y, x)] for y in range(height) for x in range(width)}
    internal = {id(members): 0 for members in component.values()}

    def unite(a: list[tuple[int, int]], b: list[tuple[int, int]], weight: int) -> None:
        a.extend(b)
        internal[id(a)] = weight
        for pixel in b:
            component[pixel] = a

    for weight, _, _, _, one, other in edges:
        a, b = component[one], component[other]
        if a is not b and weight <= min(internal[id(c)] + scale * 64 / len(c) for c in (a, b)):
            unite(a, b, weight)
    for weight, _, _, _, one, other in edges:
        a, b = component[one], component[other]
        if a is not b and min(len(a), len(b)) < smallest:
            unite(a, b, weight)
    names = {id(members): k for k, members in enumerate(component.values())}
    return np.array([[names[id(component[y, x])] for x in range(width)] for y in range(height)])


def snap(mask: npt.NDArray[np.bool_], maps: Sequence[Labels], reach: tuple[int, int], threshold: float) -> npt.NDArray[np.bool_]:
    """``mask`` (h, w) by the superpixels ``maps``; ``reach`` is how far from its boundary, in rows and columns, pixels may change."""
    height, width = mask.shape
    out = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            around = mask[max(0, y - reach[0]) : y + reach[0] + 1, max(0, x - reach[1]) : x + reach[1] + 1]
            if around.all() or not around.any():
                out[y, x] = mask[y, x]
            else:
                out[y, x] = np.mean([mask[labels == labels[y, x]].mean() for labels in maps]) > threshold + 1e-9
    return out
