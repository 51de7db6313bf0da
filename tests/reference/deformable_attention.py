"""Deformable attention as Zhu et al. (ICLR 2021) write it, Equation 3 with bilinear interpolation spelled out, place by place in float64.

It shares nothing with ``ovskit.core.models.pyramids.deformable_attention``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def at(image: Array, x: float, y: float) -> Array:
    """The map (h, w, c) at a point, x and y from 0 to 1 from border to border; zero outside."""
    height, width, channels = image.shape
    # The centre of the first place is half a place from the border.
    column, row = x * width - 0.5, y * height - 0.5
    out = np.zeros(channels)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                out += (1 - abs(row - i)) * (1 - abs(column - j)) * image[i, j]
    return out


def sample_and_sum(values: Array, shapes: Sequence[tuple[int, int]], locations: Array, weights: Array) -> Array:
    """See the function of that name: (b, Σ h·w, heads, c), (b, q, heads, maps, places, 2), (b, q, heads, maps, places)."""
    batch, queries, heads, maps, places, _ = locations.shape
    channels = values.shape[3]
    out = np.zeros((batch, queries, heads, channels))
    for b in range(batch):
        for head in range(heads):
            start = 0
            for level in range(maps):
                h, w = shapes[level]
                image = values[b, start : start + h * w, head].reshape(h, w, channels)
                start += h * w
                for q in range(queries):
                    for k in range(places):
                        x, y = locations[b, q, head, level, k]
                        out[b, q, head] += weights[b, q, head, level, k] * at(image, float(x), float(y))
    return out.reshape(batch, queries, heads * channels)


def attention(
    parts: dict[str, Array], heads: int, queries: Array, references: Array, values: Array, shapes: Sequence[tuple[int, int]]
) -> Array:
    """Equation 3 whole. ``parts`` are the weights and biases of four linear maps by their names."""

    def linear(name: str, x: Array) -> Array:
        return x @ parts[f"{name}.weight"].T + parts[f"{name}.bias"]

    batch, count, _ = queries.shape
    maps = len(shapes)
    offsets = linear("offsets", queries).reshape(batch, count, heads, maps, -1, 2)
    powers = np.exp(linear("weights", queries).reshape(batch, count, heads, -1))
    weights = (powers / powers.sum(axis=-1, keepdims=True)).reshape(offsets.shape[:-1])
    locations = np.empty_like(offsets)
    for q in range(count):
        for level, (h, w) in enumerate(shapes):
            locations[:, q, :, level] = references[q] + offsets[:, q, :, level] / np.array([w, h])
    projected = linear("value", values).reshape(batch, values.shape[1], heads, -1)
    return linear("out", sample_and_sum(projected, shapes, locations, weights))
