"""The arithmetic of k-means on float32 rows: every sum is float64, of one row after the other, in one thread.

So no result depends on threads, or on the rows that are looked at together. Within a row the sum is over lanes
(``reassoc``), in an order that is the same for every row of a width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.records import Int32
from ovskit.core.runtime.kernels import njit

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_VANISHED = 1e-34  # thousands of terms, each below float32's smallest normal number

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract"}}


@njit(**_OPTIONS)
def normalise(rows: Float32) -> None:
    """Each row divided by its length, in place; zeros stay."""
    for i in range(rows.shape[0]):
        total = 0.0
        for j in range(rows.shape[1]):
            total += np.float64(rows[i, j]) * np.float64(rows[i, j])
        if total > 0:
            scale = 1 / np.sqrt(total)
            for j in range(rows.shape[1]):
                rows[i, j] = np.float32(rows[i, j] * scale)


@njit(**_OPTIONS)
def closeness(x: Float32, y: Float32, cosine: bool) -> float:
    """x · y, or minus the squared distance: the larger, the nearer."""
    total = 0.0
    if cosine:
        for j in range(len(x)):
            total += np.float64(x[j]) * np.float64(y[j])
        return total
    for j in range(len(x)):
        difference = np.float64(x[j]) - np.float64(y[j])
        total -= difference * difference
    return total


@njit(**_OPTIONS)
def all_scores(points: Float32, centroids: Float32, cosine: bool) -> Float32:
    """``closeness`` of every point to every centroid (n, k)."""
    out = np.empty((len(points), len(centroids)), np.float32)
    for i in range(len(points)):
        for c in range(len(centroids)):
            out[i, c] = closeness(points[i], centroids[c], cosine)
    return out


@njit(**_OPTIONS)
def settle(
    points: Float32, centroids: Float32, values: Float32, found: Int64, cosine: bool, rounding: float, labels: Int32, best: Float64
) -> int:
    """The nearest centroid of every point, the lower label of equals, and the two largest values of ``closeness``.

    ``found`` (n, m) are the m nearest as another program has them and ``values`` (n, m), descending, what it takes their
    closeness for, wrong by no more than ``rounding`` times the largest that the sum's terms can be. m is one more than
    the values wanted in ``best``, (n, 2), or 2 where it is (n, 0) and left out. All centroids are looked at where there are no more, or
    where the mth cannot be told from the one before it. Returns for how many points.
    """
    width = found.shape[1]
    longest = 0.0
    if not cosine:
        for c in range(len(centroids)):
            longest = max(longest, np.sqrt(_square(centroids[c])))
    undecided = 0
    for i in range(len(points)):
        slack = rounding
        if not cosine:
            reach = np.sqrt(_square(points[i])) + longest
            slack *= reach * reach
        # A value that has overflowed, or whose terms may have vanished, decides nothing.
        sure = width > max(1, best.shape[1]) and slack + _VANISHED < values[i, width - 2] - values[i, width - 1] < np.inf
        if sure and best.shape[1] == 0:
            labels[i] = found[i, 0]
            continue
        undecided += not sure
        first, second, label = -np.inf, -np.inf, 0
        for place in range(width - 1 if sure else len(centroids)):
            c = found[i, place] if sure else place
            value = closeness(points[i], centroids[c], cosine)
            if value > first or (value == first and c < label):
                first, second, label = value, first, c
            elif value > second:
                second = value
        labels[i] = label
        if best.shape[1]:
            best[i, 0], best[i, 1] = first, second
    return undecided


@njit(**_OPTIONS)
def _square(x: Float32) -> float:
    total = 0.0
    for j in range(len(x)):
        total += np.float64(x[j]) * np.float64(x[j])
    return total


@njit(**_OPTIONS)
def add_rows(points: Float32, labels: Int32, sums: Float64) -> None:
    """Every point added to the row of ``sums`` (k, c) that its label names."""
    for i in range(len(points)):
        into, point = sums[labels[i]], points[i]
        for j in range(len(point)):
            into[j] += point[j]


@njit(**_OPTIONS)
def squared_distances(points: Float32, centroids: Float32, labels: Int32, out: Float64) -> None:
    """The squared distance of every point to the centroid that its label names, into ``out``."""
    for i in range(len(points)):
        out[i] = -closeness(points[i], centroids[labels[i]], False)


@njit(**_OPTIONS)
def lower_to(points: Float32, centre: Float32, out: Float64) -> None:
    """``out`` lowered to the squared distance to ``centre`` where that is less."""
    for i in range(len(points)):
        out[i] = min(out[i], -closeness(points[i], centre, False))
