"""Specks and holes: small connected components of masks and of what they enclose, found on runs, without dense masks.

A mask's pixels hang together over sides and corners (8-connectivity), those that it leaves out over sides only, so that no
line is crossed by both [choice]. A *hole* is a component of what is left out that does not touch the image's border.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.kernels import characters_per_run, put_changes
from ovskit.core.masks.union_find import root as root_of
from ovskit.core.records import Rle, RunTable
from ovskit.core.runtime.kernels import njit

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


def clean_components(table: RunTable, k: int, smallest: float, *, holes: bool = True) -> Rle:
    """Mask ``k`` of ``table``: first its holes of fewer than ``smallest`` pixels are filled, then its components of fewer are dropped.

    Holes come first, since what they may enclose is part of a whole [choice]. With ``holes=False`` they stay. A mask whose
    components are all too small is empty afterwards.
    """
    first, last = table.offsets[k], table.offsets[k + 1]
    changes = _clean(table.starts[first:last], table.ends[first:last], max(1, table.height), smallest, holes)
    total = table.height * table.width
    text = np.empty((len(changes) + 1) * characters_per_run(total), np.uint8)
    return Rle(table.height, table.width, text[: put_changes(changes, total, text)].tobytes())


@njit(nogil=True, cache=True)
def _clean(starts: Int64, ends: Int64, height: int, smallest: float, holes: bool) -> Int64:
    """The cleaned mask as changes: ascending pixel indices at which foreground begins or ends."""
    pieces = _cut_at_columns(starts, ends, height)
    if holes and len(pieces):
        gaps = _gaps(pieces, height)
        small = _in_small_components(gaps, height, 0, smallest, _open(gaps, pieces, height))
        pieces = _united(pieces, gaps[small], height)
    small = _in_small_components(pieces, height, 1, smallest, np.zeros(len(pieces), np.bool_))
    return _changes(pieces[~small])


@njit(nogil=True, cache=True)
def _cut_at_columns(starts: Int64, ends: Int64, height: int) -> Int64:
    """Runs in pieces that stay in their column: (n, 2) of start and end, ascending."""
    count = 0
    for r in range(len(starts)):
        count += (ends[r] - 1) // height - starts[r] // height + 1
    pieces = np.empty((count, 2), np.int64)
    count = 0
    for r in range(len(starts)):
        at = starts[r]
        while at < ends[r]:
            stop = min(ends[r], (at // height + 1) * height)
            pieces[count, 0], pieces[count, 1] = at, stop
            count += 1
            at = stop
    return pieces


@njit(nogil=True, cache=True)
def _gaps(pieces: Int64, height: int) -> Int64:
    """What the pieces leave out of the columns from their first to their last: pieces too."""
    columns = pieces[-1, 0] // height - pieces[0, 0] // height + 1
    gaps = np.empty((len(pieces) + columns, 2), np.int64)
    count = 0
    at = pieces[0, 0] // height * height
    for i in range(len(pieces) + 1):
        # Behind the last piece the rest of its column is left.
        stop = pieces[i, 0] if i < len(pieces) else (pieces[-1, 0] // height + 1) * height
        while at < stop:
            end = min(stop, (at // height + 1) * height)
            gaps[count, 0], gaps[count, 1] = at, end
            count += 1
            at = end
        if i < len(pieces):
            at = pieces[i, 1]
    return gaps[:count]


@njit(nogil=True, cache=True)
def _open(gaps: Int64, pieces: Int64, height: int) -> Bools:
    """Which gaps touch the image's border or lead out of the columns that have foreground."""
    out = np.zeros(len(gaps), np.bool_)
    for g in range(len(gaps)):
        column = gaps[g, 0] // height
        in_end_column = column == pieces[0, 0] // height or column == pieces[-1, 0] // height
        out[g] = in_end_column or gaps[g, 0] % height == 0 or gaps[g, 1] % height == 0
    return out


@njit(nogil=True, cache=True)
def _in_small_components(pieces: Int64, height: int, corner: int, smallest: float, spared: Bools) -> Bools:
    """Which pieces belong to components of fewer than ``smallest`` pixels without a ``spared`` piece.

    ``corner`` is 1 where components hang together over corners too, else 0.
    """
    n = len(pieces)
    parent = np.arange(n)
    ahead = 0
    for i in range(n):
        # In the next column: from the first piece that ends late enough to the last one that starts early enough.
        column = pieces[i, 0] // height + 1
        while ahead < n and (
            pieces[ahead, 0] // height < column
            or (pieces[ahead, 0] // height == column and pieces[ahead, 1] - height + corner <= pieces[i, 0])
        ):
            ahead += 1
        j = ahead
        while j < n and pieces[j, 0] // height == column and pieces[j, 0] - height < pieces[i, 1] + corner:
            a, b = root_of(parent, i), root_of(parent, j)
            parent[max(a, b)] = min(a, b)
            j += 1
    area = np.zeros(n, np.int64)
    keep = np.zeros(n, np.bool_)
    for i in range(n):
        root = root_of(parent, i)
        area[root] += pieces[i, 1] - pieces[i, 0]
        keep[root] = keep[root] or spared[i]
    small = np.empty(n, np.bool_)
    for i in range(n):
        root = root_of(parent, i)
        small[i] = area[root] < smallest and not keep[root]
    return small


@njit(nogil=True, cache=True)
def _united(pieces: Int64, more: Int64, height: int) -> Int64:
    """Both lists as one, ascending, what touches within a column joined."""
    out = np.empty((len(pieces) + len(more), 2), np.int64)
    count, i, j = 0, 0, 0
    while i < len(pieces) or j < len(more):
        if j == len(more) or (i < len(pieces) and pieces[i, 0] < more[j, 0]):
            start, end = pieces[i, 0], pieces[i, 1]
            i += 1
        else:
            start, end = more[j, 0], more[j, 1]
            j += 1
        if count and out[count - 1, 1] == start and start % height:
            out[count - 1, 1] = end
        else:
            out[count, 0], out[count, 1] = start, end
            count += 1
    return out[:count]


@njit(nogil=True, cache=True)
def _changes(pieces: Int64) -> Int64:
    out = np.empty(2 * len(pieces), np.int64)
    count = 0
    for i in range(len(pieces)):
        if count and out[count - 1] == pieces[i, 0]:
            out[count - 1] = pieces[i, 1]
        else:
            out[count], out[count + 1] = pieces[i, 0], pieces[i, 1]
            count += 2
    return out[:count]
