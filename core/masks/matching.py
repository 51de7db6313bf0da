"""Which masks of two sets are the same thing: one-to-one pairs by IoU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.pairs import Pairs
from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]


def match_masks(pairs: Pairs, rows: npt.NDArray[np.bool_] | None = None) -> Int64:
    """The column that each row of ``pairs`` is paired with, -1 where it is not paired: int64 (n,).

    Pairs are taken greedily, the highest IoU first, equal ones in row-major order, as long as both sides are free; ``pairs``
    are those of 0.5 or more, or of whatever IoU is asked for. Only ``rows`` (n,) take part, if given. Unlike COCO's matching it
    needs no scores and treats both sides alike. Between partitions it finds the only pairing there is, since two
    disjoint masks cannot both overlap a third by more than half.
    """
    row, column, iou = pairs.row, pairs.column, pairs.iou
    if rows is not None:
        chosen = rows[row]
        row, column, iou = row[chosen], column[chosen], iou[chosen]
    order = np.argsort(-iou, kind="stable")
    partner = np.full(len(pairs.offsets) - 1, -1, np.int64)
    _take(row[order], column[order], partner, np.zeros(pairs.columns, np.bool_))
    return partner


@njit(nogil=True, cache=True)
def _take(rows: Int64, cols: Int64, partner: Int64, taken: npt.NDArray[np.bool_]) -> None:
    for k in range(len(rows)):
        i, j = rows[k], cols[k]
        if partner[i] < 0 and not taken[j]:
            partner[i] = j
            taken[j] = True
