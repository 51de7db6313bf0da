"""Non-maximum suppression of masks."""

from __future__ import annotations

import numpy as np

from ovskit.core.masks import intervals
from ovskit.core.records import Int64, RunTable


def suppress(table: RunTable, most: float) -> Int64:
    """The places of the masks that are kept, int64, ascending: those that no mask kept before them overlaps by an IoU above ``most``.

    Greedy: masks come in order of preference. Memory goes with the number of masks, not of pairs.
    """
    return np.flatnonzero(intervals.suppress(table.starts, table.ends, table.offsets, table.bboxes, table.areas, table.height, most))
