"""Compiled loops that turn run-length masks from one form into another.

A mask of ``total = height * width`` pixels, column-major, is

- *text*: COCO's ASCII numbers, 5 bits to a character, from the fourth run on as the difference to the run two before;
- *runs*: lengths that alternate background, foreground, background …, the first of background and perhaps 0;
- *changes*: ascending pixel indices where background and foreground meet: the runs' sums, without the last;
- or dense pixels.

Only text and runs come from outside, and only ``parse_text`` and ``check_runs`` meet them unchecked: both stay inside
their bounds whatever they are given and report the first fault. Everything is ``nogil`` and cached on disk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
UInt32 = npt.NDArray[np.uint32]
UInt8 = npt.NDArray[np.uint8]

# Faults that parse_text and check_runs report.
OK, TRUNCATED, BAD_CHARACTER, NUMBER_TOO_LONG, NEGATIVE, TOO_MANY_PIXELS, TOO_FEW_PIXELS = range(7)

# 12 characters hold 60 bits: room for every padded number that fits, and sums in int64 cannot overflow.
_MAX_CHARACTERS = 12
# Bytes compared at once when searching for changes, most of which are told equal by a few vector instructions.
_BLOCK = 64
_CHUNK = 4096


def characters_per_run(total: int) -> int:
    """Most characters that one run of a mask of ``total`` pixels takes as text: a sign and the bits of ``total``."""
    return (total.bit_length() + 1 + 4) // 5


@njit(nogil=True, cache=True)
def put_number(out: UInt8, at: int, value: int) -> int:
    """Write ``value`` as text to ``out[at:]`` and return where it ends."""
    while True:
        group = value & 0x1F
        value >>= 5
        if value == (-1 if group & 0x10 else 0):
            out[at] = group + 48
            return at + 1
        out[at] = group + 0x20 + 48
        at += 1


@njit(nogil=True, cache=True)
def put_runs(runs: UInt32, out: UInt8) -> int:
    """Write canonical runs as text to ``out`` and return its length."""
    at = 0
    for i in range(len(runs)):
        value = 0
        if i > 2:
            value -= int(runs[i - 2])
        value += int(runs[i])
        at = put_number(out, at, value)
    return at


@njit(nogil=True, cache=True)
def parse_text(text: UInt8, begin: int, end: int, total: int, runs: UInt32) -> tuple[int, int, int, bool]:
    """Read ``text[begin:end]`` into canonical runs; ``runs`` has room for one run per character.

    Returns how many runs there are, the fault, the index in ``text`` where it was seen, and whether the text itself
    was canonical (no zero run but the first, no padded number).
    """
    count = 0
    zeros = False
    padded = False
    pixels = 0
    at = begin
    while at < end:
        first = at
        group = int(text[at]) - 48
        if 0 <= group < 32:  # one character, like most
            at += 1
            value = group - ((group & 0x10) << 1)
        else:
            value = 0
            shift = 0
            below = 0
            while True:
                if at >= end:
                    return count, TRUNCATED, at, False
                below = group
                group = int(text[at]) - 48
                if group < 0 or group > 63:
                    return count, BAD_CHARACTER, at, False
                at += 1
                value |= (group & 0x1F) << shift
                shift += 5
                if not group & 0x20:
                    break
                if shift >= 5 * _MAX_CHARACTERS:
                    return count, NUMBER_TOO_LONG, first, False
            if group & 0x10:
                value -= 1 << shift
            if group == (0x1F if below & 0x10 else 0):
                padded = True
        if count > 2:
            value += int(runs[count - 2])
        pixels += value
        if value <= 0 or pixels > total:
            if value < 0:
                return count, NEGATIVE, first, False
            if pixels > total:
                return count, TOO_MANY_PIXELS, first, False
            zeros = zeros or count > 0
        runs[count] = value
        count += 1
    if pixels < total:
        return count, TOO_FEW_PIXELS, end, False
    if zeros:
        count = _drop_zeros(runs, count)
    return count, OK, end, not (zeros or padded)


@njit(nogil=True, cache=True)
def check_runs(values: Int64, total: int, runs: UInt32) -> tuple[int, int, int]:
    """Copy ``values`` to ``runs`` as canonical runs; returns how many, the fault, and the index of the value at fault."""
    pixels = 0
    for i in range(len(values)):
        if values[i] < 0:
            return 0, NEGATIVE, i
        if values[i] > total - pixels:
            return 0, TOO_MANY_PIXELS, i
        pixels += values[i]
        runs[i] = values[i]
    if pixels < total:
        return 0, TOO_FEW_PIXELS, len(values)
    return _drop_zeros(runs, len(values)), OK, 0


@njit(nogil=True, cache=True)
def _drop_zeros(runs: UInt32, count: int) -> int:
    """Join the neighbours of every zero run but the first, in place; returns how many runs are left."""
    kept = 1
    for i in range(1, count):
        if runs[i] == 0:
            continue
        if (kept - 1) & 1 == i & 1:
            runs[kept - 1] += runs[i]
        else:
            runs[kept] = runs[i]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _differences(now: UInt8, before: UInt8, line: UInt8, hits: Int64) -> int:
    """Write to ``hits`` where two rows of pixels differ in being zero; ``line`` is scratch of ``_BLOCK`` bytes."""
    words = line.view(np.uint64)
    count = 0
    at = 0
    while at + _BLOCK <= len(now):
        # Slices and loops of known length: only so is this compiled to vector instructions.
        a = now[at : at + _BLOCK]
        b = before[at : at + _BLOCK]
        different = np.uint8(0)
        for i in range(_BLOCK):
            different = np.uint8(different | (a[i] ^ b[i]))
        if different != 0:
            for i in range(_BLOCK):
                line[i] = a[i] ^ b[i]
            for k in range(_BLOCK // 8):
                if words[k] != 0:
                    for i in range(8 * k, 8 * k + 8):
                        if (a[i] != 0) != (b[i] != 0):
                            hits[count] = at + i
                            count += 1
        at += _BLOCK
    for i in range(at, len(now)):
        if (now[i] != 0) != (before[i] != 0):
            hits[count] = i
            count += 1
    return count


@njit(nogil=True, cache=True)
def changes_in_columns(pixels: UInt8, out: Int64) -> int:
    """Changes of a column-major mask, given as one array of its pixels.

    Writes those that fit into ``out`` and returns how many there are.
    """
    line = np.empty(_BLOCK, np.uint8)
    hits = np.empty(_CHUNK, np.int64)
    count = 0
    if pixels[0] != 0:
        if len(out) > 0:
            out[0] = 0
        count = 1
    at = 1
    while at < len(pixels):
        stop = min(at + _CHUNK, len(pixels))
        found = _differences(pixels[at:stop], pixels[at - 1 : stop - 1], line, hits)
        for k in range(found):
            if count < len(out):
                out[count] = at + hits[k]
            count += 1
        at = stop
    return count


@njit(nogil=True, cache=True)
def changes_in_rows(pixels: UInt8, out: Int64) -> int:
    """Changes of a row-major mask (h, w) as ``x << 32 | y``, row by row: ``order_changes`` makes indices of them.

    Writes those that fit into ``out`` and returns how many there are.
    """
    height, width = pixels.shape
    line = np.empty(_BLOCK, np.uint8)
    hits = np.empty(width, np.int64)
    count = 0
    for x in range(width):
        before = pixels[height - 1, x - 1] != 0 if x > 0 else False
        if (pixels[0, x] != 0) != before:
            if count < len(out):
                out[count] = np.int64(x) << 32
            count += 1
    for y in range(1, height):
        found = _differences(pixels[y], pixels[y - 1], line, hits)
        for k in range(found):
            if count < len(out):
                out[count] = hits[k] << 32 | y
            count += 1
    return count


@njit(nogil=True, cache=True)
def order_changes(changes: Int64, height: int, width: int) -> Int64:
    """Ascending indices from ``changes_in_rows``: they come top to bottom, so one pass by column sorts them."""
    place = np.zeros(width + 1, np.int64)
    for k in range(len(changes)):
        place[(changes[k] >> 32) + 1] += 1
    for x in range(width):
        place[x + 1] += place[x]
    ordered = np.empty_like(changes)
    for k in range(len(changes)):
        x = changes[k] >> 32
        ordered[place[x]] = x * height + (changes[k] & 0xFFFFFFFF)
        place[x] += 1
    return ordered


@njit(nogil=True, cache=True)
def put_changes(changes: Int64, total: int, out: UInt8) -> int:
    """Write the mask that changes at the ascending indices ``changes`` as text to ``out`` and return its length."""
    at = 0
    pixel = 0
    previous = 0
    before = 0
    for k in range(len(changes) + 1):
        stop = changes[k] if k < len(changes) else total
        run = stop - pixel
        if k > 0 and run == 0:
            break
        at = put_number(out, at, run - before if k > 2 else run)
        before = previous
        previous = run
        pixel = stop
    return at


@njit(nogil=True, cache=True)
def fill(runs: UInt32, out: UInt8) -> None:
    """Write runs as zeros and ones over the whole of ``out`` (column-major)."""
    at = 0
    for i in range(len(runs)):
        stop = at + int(runs[i])
        value = np.uint8(i & 1)
        for k in range(at, stop):
            out[k] = value
        at = stop


@njit(nogil=True, cache=True)
def foreground(runs: UInt32) -> int:
    """Foreground pixels of runs."""
    area = 0
    for run in runs[1::2]:
        area += int(run)
    return area


@njit(nogil=True, cache=True)
def measure(runs: UInt32, height: int, box: Float64) -> int:
    """Foreground pixels; ``box`` (4,) becomes COCO's (x, y, width, height), zeros for an empty mask."""
    area = 0
    pixel = 0
    base = 0  # the first pixel of the current column
    left = -1
    right = -1
    top = height
    bottom = -1
    for i in range(1, len(runs), 2):
        pixel += int(runs[i - 1])
        area += int(runs[i])
        # Divisions are slow, and the next run is nearly always in this column or the next one.
        if pixel - base >= 4 * height:
            base = pixel - pixel % height
        while pixel - base >= height:
            base += height
        if left < 0:
            left = base // height
        first = pixel - base
        pixel += int(runs[i])
        last = pixel - 1 - base
        right = pixel - 1
        if last >= height:
            first = 0
            last = height - 1
        top = min(top, first)
        bottom = max(bottom, last)
    if area == 0:
        box[:] = 0.0
    else:
        box[0] = left
        box[1] = top
        box[2] = right // height - left + 1
        box[3] = bottom - top + 1
    return area
