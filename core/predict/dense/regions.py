"""Regions of an image as one map: painted from masks, or cut as squares; and a map of classes corrected by them."""

from __future__ import annotations

import numpy as np

from ovskit.core.masks.paint import topmost
from ovskit.core.masks.runs import chosen, table_of
from ovskit.core.records import Int32, MaskSet
from ovskit.core.runtime.kernels import njit


def painted(masks: MaskSet) -> Int32:
    """The mask on top of each pixel: (H, W) int32, its place in ``masks.masks``, -1 where there is none.

    Larger masks are painted first, so that smaller ones lie on top; of two that are as large, the later lies on top [choice].
    Raises InputError as ``runs.table_of`` does.
    """
    size = (masks.image.height, masks.image.width)
    if not masks.masks:
        return np.full(size, -1, np.int32)
    table = table_of(masks)
    order = np.argsort(-table.areas, kind="stable")
    places = np.concatenate([[-1], order]).astype(np.int32)
    return np.ascontiguousarray(places[topmost(chosen(table, order))])


def squares(height: int, width: int, side: int) -> Int32:
    """Squares of ``side`` pixels as regions, counted from 0 row by row: (height, width) int32; those at the far edges may be cut."""
    across = -(-width // side)
    return (np.arange(height, dtype=np.int32)[:, None] // side) * np.int32(across) + np.arange(width, dtype=np.int32) // side


def corrected(labels: Int32, regions: Int32) -> Int32:
    """CorrCLIP's map correction: every region takes the class of most of its pixels, the smallest id of several; (H, W) int32.

    ``labels`` (H, W) int32 are ids of classes, -1 being one of them as well; pixels of no region (-1 in ``regions``) keep theirs.
    """
    found = np.ascontiguousarray(labels, np.int32).copy()
    if found.size:
        lowest = int(found.min())
        _correct(found, np.ascontiguousarray(regions, np.int32), lowest, int(found.max()) - lowest + 1)
    return found


@njit(nogil=True, cache=True)
def _correct(labels: np.ndarray, regions: np.ndarray, lowest: int, classes: int) -> None:
    counts = np.zeros((regions.max() + 1, classes), np.int64)
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            if regions[y, x] >= 0:
                counts[regions[y, x], labels[y, x] - lowest] += 1
    best = np.zeros(len(counts), np.int64)
    for k in range(len(counts)):
        best[k] = np.argmax(counts[k])
    for y in range(height):
        for x in range(width):
            if regions[y, x] >= 0:
                labels[y, x] = best[regions[y, x]] + lowest
