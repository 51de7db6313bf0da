"""The pairs of two images' worth of masks that overlap enough: all that a matching needs of their IoU.

Of 12,000 masks against 12,000 the whole matrix has 144 million entries, of which a few thousand are 0.5 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import intervals
from ovskit.core.masks.overlap import check_crowd, check_sizes
from ovskit.core.records import RunTable

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of rows and columns with their IoU, row by row, columns ascending within a row.

    The pairs of row i are ``column[offsets[i]:offsets[i + 1]]`` and ``iou[…]``; ``offsets`` (n + 1,) and ``column`` (p,) int64, ``iou``
    (p,) float64 in (0, 1]; ``columns`` is how many columns there are.
    """

    offsets: Int64
    column: Int64
    iou: Float64
    columns: int

    @property
    def row(self) -> Int64:
        """The row of every pair, int64 (p,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def of_columns(self, chosen: Int64) -> Pairs:
        """The pairs of the ascending columns ``chosen`` alone, which become columns 0, 1, ….

        With all columns chosen, the pairs themselves.
        """
        if len(chosen) == self.columns:
            return self
        place = np.full(self.columns, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        column = place[self.column]
        kept = column >= 0
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return Pairs(before[self.offsets], column[kept], self.iou[kept], len(chosen))


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The ``pairs`` of at least some IoU, and for each row, whatever its IoU, the ``nearest`` column, int64 (n,), the first of the
    ``highest`` IoU, float64 (n,); -1 where no mask touches it."""

    pairs: Pairs
    nearest: Int64
    highest: Float64


def overlaps(a: RunTable, b: RunTable, least: float, iscrowd: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None) -> Overlaps:
    """The pairs of masks of ``a`` (rows) and ``b`` (columns) whose IoU is ``least`` > 0 or more; the numbers are those of ``overlap.iou``.

    Memory goes with the number of such pairs, 16 bytes of each (at most three times that while they are found), and with
    n + m, never with n × m. ``iscrowd`` and errors as for ``overlap.iou``.
    """
    check_sizes(a, b)
    crowd = check_crowd(iscrowd, b)
    offsets = np.zeros(len(a) + 1, np.int64)
    nearest, highest = np.full(len(a), -1, np.int64), np.zeros(len(a))
    column, value = intervals.sparse_iou(
        a.starts, a.ends, a.offsets, a.bboxes, a.areas, b.starts, b.ends, b.offsets, b.bboxes, b.areas,
        crowd, a.height, least, offsets, nearest, highest,
    )  # fmt: skip
    return Overlaps(Pairs(offsets, column, value, len(b)), nearest, highest)


def pairs_of(iou: Float64, least: float) -> Pairs:
    """The pairs of a dense table (n, m) that are ``least`` > 0 or more."""
    row, column = np.nonzero(iou >= least)
    offsets = np.searchsorted(row, np.arange(len(iou) + 1))
    return Pairs(offsets.astype(np.int64), column.astype(np.int64), iou[row, column], iou.shape[1])
