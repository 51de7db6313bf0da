"""The confusion matrix of label maps: pixels by ground-truth id and predicted id, kept apart by image.

An image has few of all pairs of ids, so it is kept as the pairs that it has. From these come the sums for any weighting of the
images, which is what intervals by bootstrap need.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ovskit.core.records import Int32
from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]

NOTHING = -1
"""The id of a pixel without a label: void in a ground truth, unlabelled in a prediction."""

_IDS = 1 << 16


class PairCounts(NamedTuple):
    """How often each pair of ids occurs in one image: int64 (n,) each, pairs in ascending order, counts above 0."""

    truth: Int64
    predicted: Int64
    pixels: Int64


def count_pairs(truth: Int32, predicted: Int32) -> PairCounts:
    """The pairs of ids of two maps (h, w) int32 with ids from -1 to 65535, without pixels that are -1 in ``truth``.

    Raises ValueError for maps of different sizes or other ids.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"maps of {truth.shape} and {predicted.shape}")
    for map_ in (truth, predicted):
        if map_.size and not (map_.min() >= NOTHING and map_.max() < _IDS):
            raise ValueError(f"ids from {map_.min()} to {map_.max()}; expected {NOTHING} to {_IDS - 1}")
    # Both in one order of memory, whichever the first one has.
    if truth.flags.f_contiguous:
        truth, predicted = truth.T, predicted.T
    return PairCounts(*_count(truth.ravel(), predicted.ravel()))


@njit(nogil=True, cache=True)
def _count(truth: Int32, predicted: Int32) -> tuple[Int64, Int64, Int64]:
    rows, columns = np.zeros(_IDS + 1, np.int32), np.zeros(_IDS + 1, np.int32)
    for k in range(len(truth)):
        rows[truth[k] + 1] = 1
        columns[predicted[k] + 1] = 1
    rows[0] = 0
    row_ids, column_ids = np.flatnonzero(rows), np.flatnonzero(columns)
    for k in range(len(row_ids)):
        rows[row_ids[k]] = k
    for k in range(len(column_ids)):
        columns[column_ids[k]] = k
    counts = np.zeros((len(row_ids), len(column_ids)), np.int64)
    for k in range(len(truth)):
        if truth[k] >= 0:
            counts[rows[truth[k] + 1], columns[predicted[k] + 1]] += 1
    size = np.count_nonzero(counts)
    found = (np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64))
    n = 0
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            if counts[i, j]:
                found[0][n], found[1][n], found[2][n] = row_ids[i] - 1, column_ids[j] - 1, counts[i, j]
                n += 1
    return found


class Confusion:
    """The pairs of all images, in any order of images."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, PairCounts]] = []

    def add(self, position: int, pairs: PairCounts) -> None:
        """The pairs of the image at ``position``."""
        self._parts.append((position, pairs))

    def rows(self) -> tuple[Int64, PairCounts]:
        """Every image's pairs, one after the other: the image's position, and the pairs."""
        positions = [np.full(len(pairs.pixels), position, np.int64) for position, pairs in self._parts]
        columns = [[pairs[k] for _, pairs in self._parts] for k in range(3)]
        none = np.zeros(0, np.int64)
        return np.concatenate([none, *positions]), PairCounts(*(np.concatenate([none, *column]) for column in columns))
