"""Compiled loops of average precision: where false positives fall among true ones, and the precision behind each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.runtime.kernels import njit

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

# What COCOeval adds to its divisor.
_TINY = float(np.spacing(1))


@njit(nogil=True, cache=True)
def find_places(
    key: Float64, position: Int32, rank: Int32, group: Int64, keys: Float64, positions: Int32, ranks: Int32, starts: Int64, place: Int64
) -> None:
    """The first of the sorted true positives that does not stand before each detection, within its group."""
    for r in range(len(key)):
        low, high = starts[group[r]], starts[group[r] + 1]
        while low < high:
            middle = (low + high) >> 1
            if keys[middle] != key[r]:
                before = keys[middle] < key[r]
            elif positions[middle] != position[r]:
                before = positions[middle] < position[r]
            else:
                before = ranks[middle] < rank[r]
            if before:
                low = middle + 1
            else:
                high = middle
        place[r] = low


@njit(nogil=True, cache=True)
def count_false(
    false: UInt64, bit: np.uint64, position: Int32, place: Int64, prefix: Int32, end: Int64, weights: Int32, before: Int32
) -> None:
    """Add each false positive's weights (b,) to ``before`` (true positives, b), at the next true positive of its group.

    ``prefix`` says how many of those with this bit stand before a place; behind the last one nothing counts any more.
    """
    for r in range(len(false)):
        if false[r] >> bit & np.uint64(1):
            at = prefix[place[r]]
            if at < prefix[end[r]]:
                for b in range(weights.shape[1]):
                    before[at, b] += weights[position[r], b]


@njit(nogil=True, cache=True)
def average(positions: Int32, before: Int32, starts: Int32, weights: Int32, counted: Int64, points: Float64, out: Float64) -> None:
    """Average precision of every group and column, into ``out`` (groups, b), which is NaN where nothing is to be found.

    A recall point's precision is the highest at any true positive that reaches it: COCO's envelope, read at the first
    detection that does.
    """
    groups, columns = out.shape
    steps = len(points)
    hits = np.zeros(columns, np.int64)
    misses = np.zeros(columns, np.int64)
    reached = np.zeros(columns, np.int64)
    best = np.zeros((columns, steps), np.float64)
    for g in range(groups):
        hits[:] = 0
        misses[:] = 0
        reached[:] = 0
        best[:] = 0.0
        for k in range(starts[g], starts[g + 1]):
            for b in range(columns):
                misses[b] += before[k, b]
                weight = weights[positions[k], b]
                if weight:
                    hits[b] += weight
                    recall = hits[b] / counted[g, b]
                    at = reached[b]
                    while at < steps and points[at] <= recall:
                        at += 1
                    reached[b] = at
                    best[b, at - 1] = max(best[b, at - 1], hits[b] / (float(misses[b]) + float(hits[b]) + _TINY))
        for b in range(columns):
            if counted[g, b]:
                out[g, b] = _mean_of_envelope(best[b])


@njit(nogil=True, cache=True)
def average_one(true: UInt64, false: UInt64, counted: Int64, points: Float64, out: Float64) -> None:
    """The same for the ranked detections of one image and group, into ``out`` (areas, thresholds)."""
    areas, thresholds = out.shape
    best = np.zeros(len(points), np.float64)
    for a in range(areas):
        for t in range(thresholds):
            bit = np.uint64(a * thresholds + t)
            hits, misses, at = 0, 0, 0
            best[:] = 0.0
            for r in range(len(true) if counted[a] else 0):
                misses += int(false[r] >> bit & np.uint64(1))
                if true[r] >> bit & np.uint64(1):
                    hits += 1
                    while at < len(points) and points[at] <= hits / counted[a]:
                        at += 1
                    best[at - 1] = max(best[at - 1], hits / (float(misses) + float(hits) + _TINY))
            if counted[a]:
                out[a, t] = _mean_of_envelope(best)


@njit(nogil=True, cache=True)
def _mean_of_envelope(best: Float64) -> Any:
    total = 0.0
    highest = 0.0
    for k in range(len(best) - 1, -1, -1):
        highest = max(highest, best[k])
        total += highest
    return total / len(best)
