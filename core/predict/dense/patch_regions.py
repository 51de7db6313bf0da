"""From regions of pixels to regions of patches, and from one grid of patches to another."""

from __future__ import annotations

import numpy as np

from ovskit.core.records import Int32
from ovskit.core.runtime.kernels import njit


def patch_regions(regions: Int32, rows: int, columns: int) -> Int32:
    """The region of most pixels of each patch: (rows, columns) int32, of regions (H, W) int32 where -1 is none.

    Pixel y lies in row ⌊y·rows/H⌋; a patch smaller than a pixel takes the pixel that it begins in. Where two have as many pixels, the
    smaller number wins, and a region before none [choice].
    """
    found = np.empty((rows, columns), np.int32)
    _most_frequent(np.ascontiguousarray(regions, np.int32), found)
    return found


def at_grid(labels: Int32, grid: tuple[int, int]) -> Int32:
    """Labels (b, h, w) of one grid of patches at another over the same window, by the nearest: patch i of n is at ⌊i·h/n⌋ of h."""
    down, across = (np.arange(new) * old // new for new, old in zip(grid, labels.shape[1:], strict=True))
    return labels[:, down[:, None], across]


@njit(nogil=True, cache=True)
def _span(index: int, size: int, count: int) -> tuple[int, int]:
    """The pixels of patch ``index`` of ``count`` over ``size``; where there are more patches than pixels, at least one."""
    begin, end = -(-index * size // count), -(-(index + 1) * size // count)
    if end > begin:
        return begin, end
    return index * size // count, index * size // count + 1


@njit(nogil=True, cache=True)
def _most_frequent(regions: np.ndarray, found: np.ndarray) -> None:
    height, width = regions.shape
    rows, columns = found.shape
    counts = np.zeros(regions.max() + 2, np.int64)  # the last is that of none, as -1 counts
    for i in range(rows):
        top, bottom = _span(i, height, rows)
        for j in range(columns):
            left, right = _span(j, width, columns)
            best = len(counts) - 1
            for y in range(top, bottom):
                for x in range(left, right):
                    counts[regions[y, x]] += 1
            for y in range(top, bottom):
                for x in range(left, right):
                    at = regions[y, x] if regions[y, x] >= 0 else len(counts) - 1
                    if counts[at] > counts[best] or (counts[at] == counts[best] and at < best):
                        best = at
            for y in range(top, bottom):
                for x in range(left, right):
                    counts[regions[y, x]] = 0
            found[i, j] = best if best < len(counts) - 1 else -1
