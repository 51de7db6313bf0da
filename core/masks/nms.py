"""Non-maximum suppression of masks."""

from __future__ import annotations

import numpy as np

from ovskit.core.masks import intervals
from ovskit.core.records import Int64, RunTable


def suppress(table: RunTable, most: float) -> Int64:
    """Which of masks in order of preference are kept: those that no kept one overlaps by an IoU above ``most``. int64, ascending.

    Greedy, from the first to the last. Memory goes with the number of masks, not of pairs.
    """
    return np.flatnonzero(intervals.suppress(table.starts, table.ends, table.offsets, table.bboxes, table.areas, table.height, most))
