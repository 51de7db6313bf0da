"""Products of unit rows in float64, one after the other: the same bits whatever is computed beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.records import Int64
from ovskit.core.runtime.kernels import njit

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def dot(one: Any, other: Any) -> float:
    """The product of two float32 vectors as the sum of four sums in float64, so that a core need not wait for each addition."""
    a = b = c = d = 0.0
    whole = len(one) // 4 * 4
    for k in range(0, whole, 4):
        a += np.float64(one[k]) * np.float64(other[k])
        b += np.float64(one[k + 1]) * np.float64(other[k + 1])
        c += np.float64(one[k + 2]) * np.float64(other[k + 2])
        d += np.float64(one[k + 3]) * np.float64(other[k + 3])
    for k in range(whole, len(one)):
        a += np.float64(one[k]) * np.float64(other[k])
    return (a + b) + (c + d)


@njit(cache=True, nogil=True)
def normalise(rows: Any) -> None:
    """Make the rows (n, c) float32 of length 1 in place; rows of zeros stay."""
    for r in range(len(rows)):
        length = np.sqrt(dot(rows[r], rows[r]))
        if length > 0.0:
            for k in range(rows.shape[1]):
                rows[r, k] = np.float32(rows[r, k] / length)


@njit(cache=True, nogil=True)
def settle(queries: Any, rows: Any, places: Any, found: Any, own: Any, limit: float) -> Any:
    """What candidates are really like, and in which order.

    ``queries`` (q, c) and ``rows`` (m, c) are unit float32 rows, ``places`` (q, k) int64 candidates' places in ``rows``, ``found`` (q, k)
    their positions among all rows, -1 where there is none. Returns positions and similarities (q, k), the most similar first, equal ones by
    position; without the position ``own`` (q,), and without what is as similar as ``limit`` or more. -1 and -inf fill up.
    """
    count, k = found.shape
    positions = np.full((count, k), -1, np.int64)
    similarity = np.full((count, k), -np.inf)
    for q in range(count):
        kept = 0
        for c in range(k):
            if found[q, c] < 0 or found[q, c] == own[q]:
                continue
            value = dot(queries[q], rows[places[q, c]])
            if value >= limit:
                continue
            at = kept
            while at > 0 and (similarity[q, at - 1] < value or (similarity[q, at - 1] == value and positions[q, at - 1] > found[q, c])):
                similarity[q, at] = similarity[q, at - 1]
                positions[q, at] = positions[q, at - 1]
                at -= 1
            similarity[q, at] = value
            positions[q, at] = found[q, c]
            kept += 1
    return positions, similarity


@njit(cache=True, nogil=True)
def merge(values: Any, positions: Any, other_values: Any, other_positions: Any) -> None:
    """Merge two lists (q, k) of candidates, each the best first, into the first one; equal ones by position; -1 is nothing."""
    count, k = values.shape
    for q in range(count):
        first = values[q].copy()
        where = positions[q].copy()
        i = j = 0
        for at in range(k):
            take_first = other_positions[q, j] < 0 or (
                where[i] >= 0 and (first[i] > other_values[q, j] or (first[i] == other_values[q, j] and where[i] < other_positions[q, j]))
            )
            if take_first:
                values[q, at] = first[i]
                positions[q, at] = where[i]
                i += 1
            else:
                values[q, at] = other_values[q, j]
                positions[q, at] = other_positions[q, j]
                j += 1


def unit(rows: Float32) -> Float32:
    """``rows`` (n, c) float32 as new rows of length 1."""
    found = np.array(rows, np.float32, order="C")
    normalise(found)
    return found


def compact(found: Int64) -> tuple[Int64, Int64]:
    """The positions in ``found`` (q, k), each once and ascending, and where each is among them; -1 gives place 0."""
    wanted, places = np.unique(found, return_inverse=True)
    places = places.reshape(found.shape).astype(np.int64)
    if len(wanted) and wanted[0] == -1:
        return wanted[1:], np.maximum(places - 1, 0)
    return wanted, places
