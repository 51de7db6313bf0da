"""Masks painted over each other: which one lies on top of every pixel."""

from __future__ import annotations

import numpy as np

from ovskit.core.records import Int32, RunTable
from ovskit.core.runtime.kernels import njit


def topmost(table: RunTable, count: int | None = None) -> Int32:
    """The topmost mask at each pixel, counted from 1: the last of the first ``count`` (all by default) that holds it; 0 where no mask does.

    (H, W) int32, column-major in memory. With masks by descending area, the topmost is the smallest.
    """
    labels = np.zeros(table.height * table.width, np.int32)
    _paint(table.offsets[: len(table) + 1 if count is None else count + 1], table.starts, table.ends, labels)
    return labels.reshape(table.width, table.height).T


@njit(nogil=True, cache=True)
def _paint(offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, labels: Int32) -> None:
    for k in range(len(offsets) - 1):
        for r in range(offsets[k], offsets[k + 1]):
            labels[starts[r] : ends[r]] = k + 1
