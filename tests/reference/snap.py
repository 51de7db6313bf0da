"""Superpixels and snapping as their papers and docstrings say them, pixel by pixel, for tiny images."""

from __future__ import annotations

import math

import numpy as np


def felzenszwalb(pixels: np.ndarray, scale: float, smallest: int) -> np.ndarray:
    """Components (h, w) of a photograph (h, w, 3), numbered by their first pixel in column-major order."""
    height, width = pixels.shape[:2]
    wide = np.pad(pixels.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = wide[:-2] + 6 * wide[1:-1] + wide[2:]
    colours = rows[:, :-2] + 6 * rows[:, 1:-1] + rows[:, 2:]  # in 1/64 of a level
    edges = []
    for x in range(width):
        for y in range(height):
            for e, (dx, dy) in enumerate(((0, 1), (1, -1), (1, 0), (1, 1))):
                if x + dx < width and 0 <= y + dy < height:
                    weight = int(math.sqrt(((colours[y, x] - colours[y + dy, x + dx]) ** 2).sum()) + 0.5)
                    edges.append((weight, x * height + y, e, (y, x), (y + dy, x + dx)))
    component = {(y, x): {(y, x)} for y in range(height) for x in range(width)}
    internal = {id(members): 0.0 for members in component.values()}

    def join(a: set[tuple[int, int]], b: set[tuple[int, int]], weight: float) -> None:
        a |= b
        internal[id(a)] = weight
        for member in b:
            component[member] = a

    refused = []
    for edge in sorted(edges):
        weight, _, _, p, q = edge
        a, b = component[p], component[q]
        if a is b:
            continue
        if weight <= min(internal[id(a)] + 64 * scale / len(a), internal[id(b)] + 64 * scale / len(b)):
            join(a, b, weight)
        else:
            refused.append(edge)
    for weight, _, _, p, q in refused:
        a, b = component[p], component[q]
        if a is not b and min(len(a), len(b)) < smallest:
            join(a, b, weight)
    labels = np.full((height, width), -1)
    count = 0
    for x in range(width):
        for y in range(height):
            if labels[y, x] < 0:
                for member in component[y, x]:
                    labels[member] = count
                count += 1
    return labels


def snap(mask: np.ndarray, maps: list[np.ndarray], threshold: float, reach: tuple[int, int]) -> np.ndarray:
    """``mask`` (h, w) bool after snapping to the superpixels ``maps``; pixels change within ``reach`` (rows, columns) of both sides."""
    out = mask.copy()
    for y, x in np.ndindex(mask.shape):
        around = mask[max(0, y - reach[0]) : y + reach[0] + 1, max(0, x - reach[1]) : x + reach[1] + 1]
        if around.all() or not around.any():
            continue
        shares = [mask[labels == labels[y, x]].mean() for labels in maps]
        out[y, x] = np.mean(shares) > threshold + 1e-9
    return out
