"""Run-length masks of the regions of a coarse label grid, scaled up to an image without making a dense mask.

A patch grid is laid over ``[start, stop)`` of each image axis and scaled by nearest neighbour: the pixel p, whose centre
is p + ½, belongs to cell floor((p + ½ − start) / (stop − start) · cells). All pixel columns inside one column of cells
hold the same runs, so a region costs its runs on the grid plus the bytes of its text: once two pixel columns in a row
begin in the same state of the encoder, the text between them is repeated for the rest of the column of cells.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.checks import MAX_PIXELS
from ovskit.core.masks.kernels import characters_per_run, put_number
from ovskit.core.records import Rle
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.kernels import njit

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]


class GridMasks(NamedTuple):
    """Masks of k regions: ``rles``, ``areas`` int64 (k,) in pixels, ``bboxes`` float64 (k, 4) as COCO's (x, y, w, h).

    A region that falls between the pixels of a small image, or is not in the grid, has area 0 and a box of zeros.
    """

    rles: list[Rle]
    areas: Int64
    bboxes: Float64


def edges(cells: int, start: float, stop: float, limit: int) -> Int32:
    """Pixel boundaries of ``cells`` cells laid over ``[start, stop)`` of an axis of ``limit`` pixels: int32 (cells + 1,).

    Cell k holds the pixels ``edges[k]:edges[k + 1]``, none where cells are smaller than pixels. The grid may reach past
    the axis at both ends; what lies outside is cut off. Raises ``InputError`` if there is no cell, no pixel, or the
    interval is empty or not finite.
    """
    if cells < 1 or limit < 1 or not (math.isfinite(start) and math.isfinite(stop) and start < stop):
        raise InputError(f"cannot lay {cells} cells over pixels {start} to {stop} of an axis of {limit}: each must be positive and finite")
    # Multiplied before divided: for integer and half-integer boxes only the quotient is rounded, so no pixel whose
    # centre is exactly on a boundary can fall to the wrong side.
    cell = np.floor((np.arange(limit) + 0.5 - start) * cells / (stop - start))
    return np.searchsorted(cell, np.arange(cells + 1)).astype(np.int32)


def grid_rles(labels: Int32, wanted: npt.NDArray[np.integer[Any]], rows: Int32, cols: Int32, height: int, width: int) -> GridMasks:
    """Masks of the regions ``wanted`` (k,) of one grid ``labels`` (gh, gw), in that order; see ``nested_rles``."""
    wanted = np.asarray(wanted)
    pairs = np.stack([np.zeros_like(wanted), wanted], axis=1) if wanted.ndim == 1 else wanted
    return nested_rles(labels[None], pairs, rows, cols, height, width)


def nested_rles(labels: Int32, wanted: npt.NDArray[np.integer[Any]], rows: Int32, cols: Int32, height: int, width: int) -> GridMasks:
    """Masks of regions from several partitions of one grid, on an image of ``height`` × ``width`` pixels.

    ``labels`` int32 (t, gh, gw) holds one partition a layer, any values; ``wanted`` integer (k, 2) holds (layer, label)
    pairs, in the order the masks come back, repeats allowed. ``rows`` (gh + 1,) and ``cols`` (gw + 1,) are the pixel
    boundaries of ``edges``; pixels outside of them are background. The result equals scaling each layer to pixels by
    nearest neighbour and encoding ``layer == label``. Raises ``InputError`` if shapes, boundaries, sizes or layers do
    not fit together.
    """
    _check(labels, wanted, rows, cols, height, width)
    k = len(wanted)
    # One sorted integer a region: layer above, label below, so the regions of a layer are a slice to be searched.
    keys, back = np.unique((wanted[:, 0].astype(np.int64) << 32) + wanted[:, 1].astype(np.int64), return_inverse=True)
    areas = np.zeros(len(keys), np.int64)
    bboxes = np.zeros((len(keys), 4), np.float64)
    offsets, cell_column, top, bottom = _collect(np.ascontiguousarray(labels), keys, rows, cols, areas, bboxes)
    total = height * width
    columns = (cols[1:] - cols[:-1]).astype(np.int64)
    pairs_of_runs = int(columns[cell_column].sum()) + len(keys)
    text = np.empty(2 * pairs_of_runs * characters_per_run(total), np.uint8)
    bounds = _write(offsets, cell_column, top, bottom, cols, height, total, text).tolist()
    whole = text[: bounds[-1]].tobytes()
    rles = [Rle(height, width, whole[bounds[i] : bounds[i + 1]]) for i in range(len(keys))]
    if len(keys) == k and np.array_equal(back, np.arange(k)):
        return GridMasks(rles, areas, bboxes)
    return GridMasks([rles[i] for i in back.tolist()], areas[back], bboxes[back])


def _check(labels: Int32, wanted: npt.NDArray[np.integer[Any]], rows: Int32, cols: Int32, height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"cannot write masks of {width}x{height} pixels: sizes must be positive and their product below 2^32")
    if labels.ndim != 3 or labels.dtype != np.int32:
        raise InputError(f"label grids must be int32 of shape (layers, rows, columns), not {labels.dtype} of shape {labels.shape}")
    if wanted.ndim != 2 or wanted.shape[1] != 2 or wanted.dtype.kind not in "iu":
        raise InputError(f"wanted regions must be integers of shape (k, 2), not {wanted.dtype} of shape {wanted.shape}")
    if len(wanted) and not (wanted[:, 0].min() >= 0 and wanted[:, 0].max() < len(labels)):
        raise InputError(
            f"wanted regions name layers {wanted[:, 0].min()} to {wanted[:, 0].max()}, but there are {len(labels)} label grids"
        )
    if len(wanted) and not (wanted[:, 1].min() >= -(2**31) and wanted[:, 1].max() < 2**31):
        raise InputError("wanted labels must fit 32 bits, as those of the label grids do")
    for name, boundaries, cells, limit in (("row", rows, labels.shape[1], height), ("column", cols, labels.shape[2], width)):
        if boundaries.shape != (cells + 1,) or boundaries[0] < 0 or boundaries[-1] > limit or (boundaries[1:] < boundaries[:-1]).any():
            raise InputError(f"{name} boundaries must be {cells + 1} ascending pixels within 0 to {limit}: make them with edges()")


@njit(nogil=True, cache=True)
def _collect(labels: Int32, keys: Int64, rows: Int32, cols: Int32, areas: Int64, bboxes: Float64) -> tuple[Int64, Int32, Int32, Int32]:
    """Vertical runs of the regions ``keys`` on the grid, grouped by region and column-major inside each.

    Returns the groups' offsets and, for each run, its column of cells and the pixel rows ``[top, bottom)``. Fills areas
    and boxes, both of which need no more than these runs.
    """
    layers, grid_height, grid_width = labels.shape
    room = labels.size
    region = np.empty(room, np.int32)
    run_column = np.empty(room, np.int32)
    run_top = np.empty(room, np.int32)
    run_bottom = np.empty(room, np.int32)
    offsets = np.zeros(len(keys) + 1, np.int64)
    left = np.full(len(keys), -1, np.int64)
    found = np.empty(grid_height, np.int64)  # the region of each cell in the column to the left, -1 outside all regions
    count = 0
    first = 0
    for layer in range(layers):
        last = first
        while last < len(keys) and keys[last] < ((layer + 1) << 32) - (np.int64(1) << 31):
            last += 1
        base = np.int64(layer) << 32
        if first == last:
            continue
        for x in range(grid_width):
            wide = np.int64(cols[x + 1] - cols[x])
            open_region = -1
            open_row = 0
            for y in range(grid_height + 1):
                now = -1
                if y < grid_height:
                    label = labels[layer, y, x]
                    # Searched only where a region begins: the cell above or to the left mostly has the answer.
                    if y > 0 and label == labels[layer, y - 1, x]:
                        now = found[y - 1]
                    elif x > 0 and label == labels[layer, y, x - 1]:
                        now = found[y]
                    else:
                        now = _find(keys, first, last, base + label)
                    found[y] = now
                if now == open_region:
                    continue
                top = np.int64(rows[open_row])
                bottom = np.int64(rows[y])
                if open_region >= 0 and wide > 0 and bottom > top:
                    k = open_region
                    region[count] = k
                    run_column[count] = x
                    run_top[count] = top
                    run_bottom[count] = bottom
                    count += 1
                    offsets[k + 1] += 1
                    areas[k] += wide * (bottom - top)
                    if left[k] < 0:
                        left[k] = cols[x]
                        bboxes[k, 0] = cols[x]
                        bboxes[k, 1] = top
                        bboxes[k, 3] = bottom
                    bboxes[k, 1] = min(bboxes[k, 1], top)
                    bboxes[k, 3] = max(bboxes[k, 3], bottom)
                    bboxes[k, 2] = cols[x + 1] - left[k]
                open_region = now
                open_row = y
        first = last
    for k in range(len(keys)):
        bboxes[k, 3] -= bboxes[k, 1]
        offsets[k + 1] += offsets[k]
    place = offsets[:-1].copy()
    cell_column = np.empty(count, np.int32)
    tops = np.empty(count, np.int32)
    bottoms = np.empty(count, np.int32)
    for i in range(count):
        at = place[region[i]]
        place[region[i]] += 1
        cell_column[at] = run_column[i]
        tops[at] = run_top[i]
        bottoms[at] = run_bottom[i]
    return offsets, cell_column, tops, bottoms


@njit(nogil=True, cache=True)
def _find(keys: Int64, low: int, high: int, key: int) -> int:
    """Index of ``key`` in the ascending ``keys[low:high]``, or -1."""
    stop = high
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and keys[low] == key else -1


@njit(nogil=True, cache=True)
def _write(offsets: Int64, cell_column: Int32, tops: Int32, bottoms: Int32, cols: Int32, height: int, total: int, text: UInt8) -> Int64:
    """Write every region's mask to ``text``, one after the other; returns their bounds (k + 1,).

    The encoder's state is the open interval ``[start, end)``, not yet written because the next one may touch it, the
    ``pixel`` up to which runs are written, and the two runs that the next numbers are differences to. ``gap_before`` is
    0 after the first pair of runs too, since COCO writes the third run whole.
    """
    bounds = np.zeros(len(offsets), np.int64)
    at = 0
    for k in range(len(offsets) - 1):
        start = end = pixel = 0
        gap_before = length_before = 0
        group = offsets[k]
        while group < offsets[k + 1]:
            x = cell_column[group]
            group_end = group + 1
            while group_end < offsets[k + 1] and cell_column[group_end] == x:
                group_end += 1
            last_start = last_end = last_pixel = last_gap = last_length = -1
            column = int(cols[x])
            column_end = int(cols[x + 1])
            mark = at
            while column < column_end:
                base = column * height
                if (
                    start - base == last_start
                    and end - base == last_end
                    and pixel - base == last_pixel
                    and gap_before == last_gap
                    and length_before == last_length
                ):
                    written = at - mark
                    for i in range(written * (column_end - column)):
                        text[at + i] = text[mark + i]
                    at += written * (column_end - column)
                    skipped = (column_end - column) * height
                    start += skipped
                    end += skipped
                    pixel += skipped
                    break
                last_start, last_end, last_pixel = start - base, end - base, pixel - base
                last_gap, last_length = gap_before, length_before
                mark = at
                for i in range(group, group_end):
                    top = base + int(tops[i])
                    if end > start and top == end:
                        end = base + int(bottoms[i])
                        continue
                    if end > start:
                        at = put_number(text, at, start - pixel - gap_before)
                        at = put_number(text, at, end - start - length_before)
                        gap_before = start - pixel if length_before > 0 else 0
                        length_before = end - start
                        pixel = end
                    start = top
                    end = base + int(bottoms[i])
                column += 1
            group = group_end
        if end > start:
            at = put_number(text, at, start - pixel - gap_before)
            at = put_number(text, at, end - start - length_before)
            gap_before = start - pixel if length_before > 0 else 0
            pixel = end
        if pixel < total:
            at = put_number(text, at, total - pixel - gap_before)
        bounds[k + 1] = at
    return bounds
