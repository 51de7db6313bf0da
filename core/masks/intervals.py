"""Compiled loops over many run-length masks of one size: unpack, merge, compare in pairs.

A mask comes as text (``masks.kernels`` tells what that is). For merging it is turned into changes; for comparing, its
foreground becomes a list of ascending, disjoint, non-touching ``[start, end)`` of column-major pixel
indices, mask k of a table owning the entries ``offsets[k]:offsets[k + 1]``. Everything is ``nogil`` and cached on disk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.kernels import OK, measure, parse_text
from ovskit.core.runtime.kernels import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@njit(nogil=True, cache=True)
def parse_table(
    text: UInt8, bounds: Int64, height: int, total: int, starts: Int64, ends: Int64, offsets: Int64, areas: Int64, boxes: Float64
) -> tuple[int, int, int]:
    """Read the masks ``text[bounds[k]:bounds[k + 1]]`` into intervals ``offsets[k]:offsets[k + 1]``, areas and boxes.

    Returns the index of the first faulty mask, its fault and the character; the fault is ``OK`` where all masks are valid.
    """
    longest = 0
    for k in range(len(areas)):
        longest = max(longest, bounds[k + 1] - bounds[k])
    runs = np.empty(longest, np.uint32)
    at = 0
    for k in range(len(areas)):
        count, fault, where, _ = parse_text(text, bounds[k], bounds[k + 1], total, runs)
        if fault != OK:
            return k, fault, where - bounds[k]
        offsets[k] = at
        at, areas[k] = _unpack(runs[:count], height, at, starts, ends, boxes[k])
    offsets[len(areas)] = at
    return len(areas), OK, 0


@njit(nogil=True, cache=True)
def add_mask(text: UInt8, height: int, total: int, at: int, spans: Int64, found: Int64) -> None:
    """Read one mask's ``text`` into intervals ``spans[at:]`` (…, 2) of start and end.

    ``found`` (9,) becomes the fault and its character, whether the text was canonical, where the intervals end, area and box. At a fault
    no interval is written. So few arrays, since for a mask it costs more to hand them over than to read it.
    """
    runs = np.empty(len(text), np.uint32)
    count, fault, where, canonical = parse_text(text, 0, len(text), total, runs)
    found[0], found[1], found[2] = fault, where, canonical
    if fault == OK:
        box = np.empty(4, np.float64)
        found[3], found[4] = _unpack(runs[:count], height, at, spans[:, 0], spans[:, 1], box)
        for k in range(4):
            found[5 + k] = int(box[k])


@njit(nogil=True, cache=True)
def _unpack(runs: npt.NDArray[np.uint32], height: int, at: int, starts: Int64, ends: Int64, box: Float64) -> tuple[int, int]:
    """Write a mask's runs as intervals to ``starts[at:]`` and ``ends[at:]``, its box to ``box``; returns where they end, and its area."""
    pixel = 0
    for i in range(1, len(runs), 2):
        pixel += int(runs[i - 1])
        starts[at] = pixel
        pixel += int(runs[i])
        ends[at] = pixel
        at += 1
    return at, measure(runs, height, box)


@njit(nogil=True, cache=True)
def merge(text: UInt8, bounds: Int64, total: int, unite: bool) -> tuple[Int64, int, int, int]:
    """Union or intersection of the masks ``text[bounds[k]:bounds[k + 1]]``, as changes.

    Also returns the first faulty mask, its fault and the character, as ``parse_table`` does. Masks are added one by
    one, but only between a mask's first and last change is there more to do than to copy.
    """
    masks = len(bounds) - 1
    longest = 0
    for k in range(masks):
        longest = max(longest, bounds[k + 1] - bounds[k])
    runs = np.empty(longest, np.uint32)
    new = np.empty(longest + 1, np.int64)
    merged = np.empty(len(text) + 1, np.int64)
    scratch = np.empty(len(text) + 1, np.int64)
    size = 0
    for k in range(masks):
        count, fault, where, _ = parse_text(text, bounds[k], bounds[k + 1], total, runs)
        if fault != OK:
            return merged[:0], k, fault, where - bounds[k]
        pixel = 0
        for i in range(count):
            pixel += int(runs[i])
            new[i] = pixel
        # The last entry, ``total``, ends the list and is not a change.
        if k == 0:
            size = count - 1
            merged[:count] = new[:count]
            continue
        size = _merge_two(merged, size, new, count - 1, total, unite, scratch)
        scratch[size] = total
        merged, scratch = scratch, merged
    return merged[:size], masks, OK, 0


@njit(nogil=True, cache=True)
def _merge_two(a: Int64, size_a: int, b: Int64, size_b: int, total: int, unite: bool, out: Int64) -> int:
    """Merge the changes ``a[:size_a]`` and ``b[:size_b]``, each followed by ``total``; returns how many ``out`` has.

    A mask is foreground behind an odd number of its changes, so indices are the state.
    """
    i = _first_above(a, 0, size_a, b[0] - 1)
    j = 0
    size = 0
    if unite:
        size = i
        out[:i] = a[:i]
    elif i == 0:
        j = _first_above(b, 0, size_b, a[0] - 1)
    while i < size_a and j < size_b:
        # Branches, not arithmetic: neighbouring columns repeat the same order, which processors learn.
        at = a[i]
        if at < b[j]:
            i += 1
        elif at > b[j]:
            at = b[j]
            j += 1
        else:
            i += 1
            j += 1
        if (((i | j) if unite else (i & j)) ^ size) & 1:
            out[size] = at
            size += 1
    # One of them stays as it is from here on: the result follows the other one, or is settled too.
    through = 0 if unite else 1
    if i < size_a and j & 1 == through:
        out[size : size + size_a - i] = a[i:size_a]
        size += size_a - i
    elif j < size_b and i & 1 == through:
        out[size : size + size_b - j] = b[j:size_b]
        size += size_b - j
    return size


@njit(nogil=True, cache=True)
def _first_above(values: Int64, low: int, high: int, limit: int) -> int:
    """The first index of the ascending ``values[low:high]`` that is greater than ``limit``, or ``high``."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] > limit:
            high = middle
        else:
            low = middle + 1
    return low


@njit(nogil=True, cache=True)
def pairwise(
    starts_a: Int64,
    ends_a: Int64,
    offsets_a: Int64,
    boxes_a: Float64,
    starts_b: Int64,
    ends_b: Int64,
    offsets_b: Int64,
    boxes_b: Float64,
    height: int,
    same: bool,
    out: Int64,
) -> None:
    """Pixels that masks i and j share, into ``out`` (n, m). With ``same`` b is a, and half of the work is mirrored."""
    n, m = out.shape
    for i in range(n):
        for j in range(i if same else 0, m):
            shared = 0
            if _boxes_meet(boxes_a, i, boxes_b, j):
                shared = _shared(starts_a, ends_a, offsets_a, boxes_a, i, starts_b, ends_b, offsets_b, boxes_b, j, height)
            out[i, j] = shared
            if same:
                out[j, i] = shared


@njit(nogil=True, cache=True)
def one_by_one(
    starts_a: Int64,
    ends_a: Int64,
    offsets_a: Int64,
    boxes_a: Float64,
    starts_b: Int64,
    ends_b: Int64,
    offsets_b: Int64,
    boxes_b: Float64,
    height: int,
    out: Int64,
) -> None:
    """Pixels that mask k of one table and mask k of the other share, into ``out`` (n,)."""
    for k in range(len(out)):
        if _boxes_meet(boxes_a, k, boxes_b, k):
            out[k] = _shared(starts_a, ends_a, offsets_a, boxes_a, k, starts_b, ends_b, offsets_b, boxes_b, k, height)


@njit(nogil=True, cache=True)
def suppress(starts: Int64, ends: Int64, offsets: Int64, boxes: Float64, areas: Int64, height: int, most: float) -> npt.NDArray[np.bool_]:
    """The masks that are kept, bool (n,): those that no mask kept before them overlaps by an IoU above ``most``."""
    kept = np.ones(len(areas), np.bool_)
    for i in range(len(areas)):
        if not kept[i]:
            continue
        for j in range(i + 1, len(areas)):
            if not kept[j] or not _boxes_meet(boxes, i, boxes, j):
                continue
            # The IoU is at most the ratio of the areas, so the pixels of much smaller or larger masks are not compared.
            if min(areas[i], areas[j]) / max(areas[i], areas[j]) <= most:
                continue
            shared = _shared(starts, ends, offsets, boxes, i, starts, ends, offsets, boxes, j, height)
            if shared > 0 and shared / (areas[i] + areas[j] - shared) > most:
                kept[j] = False
    return kept


@njit(nogil=True, cache=True)
def sparse_iou(
    starts_a: Int64,
    ends_a: Int64,
    offsets_a: Int64,
    boxes_a: Float64,
    areas_a: Int64,
    starts_b: Int64,
    ends_b: Int64,
    offsets_b: Int64,
    boxes_b: Float64,
    areas_b: Int64,
    crowd: npt.NDArray[np.bool_],
    height: int,
    least: float,
    offsets: Int64,
    nearest: Int64,
    highest: Float64,
) -> tuple[Int64, Float64]:
    """Columns and IoU of the pairs of at least ``least`` > 0, row by row; ``offsets`` (n + 1,) says where each row's begin.

    ``nearest`` (n,) becomes the first column of the row's ``highest`` (n,) IoU, where anything is shared at all.
    """
    n, m = len(areas_a), len(areas_b)
    column, value = np.empty(n + m, np.int64), np.empty(n + m, np.float64)
    size = 0
    offsets[0] = 0
    for i in range(n):
        for j in range(m):
            if not _boxes_meet(boxes_a, i, boxes_b, j):
                continue
            shared = _shared(starts_a, ends_a, offsets_a, boxes_a, i, starts_b, ends_b, offsets_b, boxes_b, j, height)
            if shared == 0:
                continue
            iou = shared / (areas_a[i] if crowd[j] else areas_a[i] + areas_b[j] - shared)
            if iou > highest[i]:
                nearest[i], highest[i] = j, iou
            if iou >= least:
                if size == len(column):
                    column, value = np.concatenate((column, np.empty_like(column))), np.concatenate((value, np.empty_like(value)))
                column[size], value[size] = j, iou
                size += 1
        offsets[i + 1] = size
    return column[:size].copy(), value[:size].copy()


@njit(nogil=True, cache=True, inline="always")
def _boxes_meet(boxes_a: Float64, i: int, boxes_b: Float64, j: int) -> bool:
    return (
        boxes_a[i, 0] < boxes_b[j, 0] + boxes_b[j, 2]
        and boxes_b[j, 0] < boxes_a[i, 0] + boxes_a[i, 2]
        and boxes_a[i, 1] < boxes_b[j, 1] + boxes_b[j, 3]
        and boxes_b[j, 1] < boxes_a[i, 1] + boxes_a[i, 3]
    )


@njit(nogil=True, cache=True)
def _shared(
    starts_a: Int64, ends_a: Int64, offsets_a: Int64, boxes_a: Float64, i: int,
    starts_b: Int64, ends_b: Int64, offsets_b: Int64, boxes_b: Float64, j: int,
    height: int,
) -> int:  # fmt: skip
    """Pixels that mask i of one table and mask j of the other share; their boxes meet."""
    left = max(boxes_a[i, 0], boxes_b[j, 0])
    top = max(boxes_a[i, 1], boxes_b[j, 1])
    right = min(boxes_a[i, 0] + boxes_a[i, 2], boxes_b[j, 0] + boxes_b[j, 2])
    bottom = min(boxes_a[i, 1] + boxes_a[i, 3], boxes_b[j, 1] + boxes_b[j, 3])
    # Only pixels from the common box's first corner to its last one can be shared.
    begin = int(left) * height + int(top)
    end = (int(right) - 1) * height + int(bottom)
    p = _first_above(ends_a, offsets_a[i], offsets_a[i + 1], begin)
    q = _first_above(ends_b, offsets_b[j], offsets_b[j + 1], begin)
    p_stop = _first_above(starts_a, p, offsets_a[i + 1], end - 1)
    q_stop = _first_above(starts_b, q, offsets_b[j + 1], end - 1)
    shared = 0
    while p < p_stop and q < q_stop:
        if ends_a[p] <= starts_b[q]:
            p += 1
        elif ends_b[q] <= starts_a[p]:
            q += 1
        else:
            shared += min(ends_a[p], ends_b[q]) - max(starts_a[p], starts_b[q])
            if ends_a[p] < ends_b[q]:
                p += 1
            else:
                q += 1
    return shared
