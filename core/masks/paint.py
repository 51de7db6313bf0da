"""Masks painted over each other: which one lies on top of every pixel."""

from __future__ import annotations

import numpy as np

from ovskit.core.records import Int32, RunTable
from ovskit.core.runtime.kernels import njit


def topmost(table: RunTable, count: int | None = None) -> Int32:
    """The last of the first ``count`` masks (all by default) that holds each pixel, counted from 1; 0 where none does.

    (H, W) int32, column-major in memory. Of masks by descending area the last one is the smallest.
    """
    labels = np.zeros(table.height * table.width, np.int32)
    _paint(table.offsets[: len(table) + 1 if count is None else count + 1], table.starts, table.ends, labels)
    return labels.reshape(table.width, table.height).T


@njit(nogil=True, cache=True)
def _paint(offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, labels: Int32) -> None:
    for k in range(len(offsets) - 1):
        for r in range(offsets[k], offsets[k + 1]):
            labels[starts[r] : ends[r]] = k + 1
