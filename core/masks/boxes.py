"""Dense pieces of run-length masks: a box decoded, a box encoded again, never the whole image.

What works on pixels (refiners) works on a box around each mask, so its cost goes with the mask and not with the image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.kernels import characters_per_run, put_changes
from ovskit.core.records import Rle, RunTable, UInt8
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]


def box_around(table: RunTable, k: int, margin: int) -> Box:
    """(top, left, bottom, right) in pixels around mask ``k`` of ``table``, ``margin`` wider on each side, within the image.

    An empty mask has the empty box (0, 0, 0, 0).
    """
    x, y, width, height = (int(value) for value in table.bboxes[k])
    if not width:
        return 0, 0, 0, 0
    return (max(0, y - margin), max(0, x - margin), min(table.height, y + height + margin), min(table.width, x + width + margin))


def decode_box(table: RunTable, k: int, box: Box) -> UInt8:
    """Mask ``k`` of ``table`` inside ``box`` (top, left, bottom, right): uint8 (bottom - top, right - left) of 0 and 1.

    C-contiguous. ``box`` must lie within the image.
    """
    top, left, bottom, right = box
    out = np.zeros((bottom - top, right - left), np.uint8)
    first, last = table.offsets[k], table.offsets[k + 1]
    _fill_box(table.starts[first:last], table.ends[first:last], table.height, top, left, out)
    return out


def encode_box(pixels: npt.NDArray[np.bool_] | UInt8, box: Box, height: int, width: int) -> Rle:
    """The mask of an image of ``height`` × ``width`` whose foreground is that of ``pixels``, laid at ``box``.

    ``pixels`` bool or uint8 (bottom - top, right - left), non-zero is foreground; everything outside ``box`` is background.
    Raises InputError if they do not fit together.
    """
    top, left, bottom, right = box
    inside = 0 <= top <= bottom <= height and 0 <= left <= right <= width
    if not inside or pixels.shape != (bottom - top, right - left) or pixels.dtype not in (np.bool_, np.uint8):
        raise InputError(f"cannot lay {pixels.shape} pixels of {pixels.dtype} at {box} of an image of {width}x{height}")
    columns = np.ascontiguousarray(pixels.view(np.uint8).T)
    changes = _changes_of_box(columns, top, left, height)
    text = np.empty((len(changes) + 1) * characters_per_run(height * width), np.uint8)
    return Rle(height, width, text[: put_changes(changes, height * width, text)].tobytes())


@njit(nogil=True, cache=True)
def _fill_box(starts: Int64, ends: Int64, height: int, top: int, left: int, out: UInt8) -> None:
    rows, cols = out.shape
    for r in range(len(starts)):
        at = starts[r]
        x = at // height
        while at < ends[r]:
            stop = min(ends[r], (x + 1) * height)
            if left <= x < left + cols:
                base = x * height + top
                for y in range(max(0, at - base), min(rows, stop - base)):
                    out[y, x - left] = 1
            at = stop
            x += 1


@njit(nogil=True, cache=True)
def _changes_of_box(columns: UInt8, top: int, left: int, height: int) -> Int64:
    cols, rows = columns.shape
    count = 0
    changes = np.empty(0, np.int64)
    for write in (False, True):
        if write:
            changes = np.empty(count, np.int64)
            count = 0
        inside = False  # the state at the pixel before, in column-major order of the whole image
        for x in range(cols):
            base = (left + x) * height + top
            if inside and rows < height:  # what is above and below the box is background
                if write:
                    changes[count] = base - height + rows
                count += 1
                inside = False
            for y in range(rows):
                now = columns[x, y] != 0
                if now != inside:
                    if write:
                        changes[count] = base + y
                    count += 1
                    inside = now
        if inside:
            if write:
                changes[count] = (left + cols - 1) * height + top + rows
            count += 1
    return changes
