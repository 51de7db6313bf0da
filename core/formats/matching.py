"""Which masks of two sets are the same thing: one-to-one pairs by IoU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.runtime.kernels import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def match_masks(iou: Float64, at: float = 0.5) -> Int64:
    """The column that each row of ``iou`` (n, m) is paired with, -1 for none: int64 (n,).

    Pairs are taken greedily, the highest IoU first, equal ones in row-major order, as long as it is ``at`` or more and both
    sides are free. Unlike COCO's matching it needs no scores and treats both sides alike. Between partitions it finds
    the only pairing there is, since two disjoint masks cannot both overlap a third by more than half.
    """
    rows, cols = np.nonzero(iou >= at)
    order = np.argsort(-iou[rows, cols], kind="stable")
    partner = np.full(iou.shape[0], -1, np.int64)
    _take(rows[order], cols[order], partner, np.zeros(iou.shape[1], np.bool_))
    return partner


@njit(nogil=True, cache=True)
def _take(rows: Int64, cols: Int64, partner: Int64, taken: npt.NDArray[np.bool_]) -> None:
    for k in range(len(rows)):
        i, j = rows[k], cols[k]
        if partner[i] < 0 and not taken[j]:
            partner[i] = j
            taken[j] = True
