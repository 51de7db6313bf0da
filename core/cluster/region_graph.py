"""The graph of regions under a merge sequence: sums, edges, and one merge (compiled code only).

``merge`` explains the method. Every function works on arrays that it is given: ``rows`` (N, C), the feature buffer with
the sums; ``region`` (REGION by slot); ``half`` (HALF by end); ``known`` (by edge: how closely the heap knows it); ``heap``,
``place`` and ``count`` of ``edge_heap``; ``zeros`` (C,) float32, for a sum without a second row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.compiled import compiled
from ovskit.core.cluster.edge_heap import ONE, SIZE, append, lift, order, pack, rekey, remove, similarity_of
from ovskit.core.cluster.inner_products import SINGLE_LANES, add_split, dot_single, dot_split

Records = Any  # structured array; numba reads its fields as attributes, which NumPy's types do not know
Level = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

_LARGEST_NORM = 1e30  # sums of 2**27 patches still fit into float32

REGION = np.dtype(
    [
        ("norm", np.float64),
        ("low_row", np.int32),  # row of the buffer with what the sum's own row rounds off, or -1 where that is zero
        ("name", np.int32),  # lowest patch index
        ("head", np.int32),  # first half-edge, or -1
        ("degree", np.int32),
        ("mark", np.int32),  # last step in which the region was a neighbour of the absorber
    ],
    align=True,
)
"""A region, by slot: the row of the buffer that holds its sum, whatever the region's name is."""

HALF = np.dtype([("at", np.int32), ("next", np.int32), ("previous", np.int32)])
"""One end of an edge, in the list of the region (slot) that it is at. Edge e is the halves 2e and 2e + 1."""

LOOSE, CLOSE, EXACT = 0, 1, 2
"""What the heap holds of an edge (``known``): a bound by angles, a bound by an estimate, or the similarity itself."""

_LEAST_NORMS, _MOST_NORMS = 2.0**-60, 2.0**100  # of two regions; beyond, single precision may under- or overflow

EVALUATIONS = 2  # one more place in the heap's ``count``: cosines estimated or computed


@compiled
def _product(rows: Float32, region: Records, zeros: Float32, one: int, other: int) -> float:
    return float(dot_split(rows, zeros, one, region[one].low_row, other, region[other].low_row))


@compiled
def evaluate(rows: Float32, region: Records, zeros: Float32, count: Int64, known: Level, edge: int, one: int, other: int) -> int:
    """An edge's cosine, in billionths."""
    known[edge] = EXACT
    count[EVALUATIONS] += 1
    norms = region[one].norm * region[other].norm
    if norms == 0.0:
        return 0
    return int(np.rint(min(1.0, max(-1.0, _product(rows, region, zeros, one, other) / norms)) * ONE))


@compiled
def estimate(rows: Float32, region: Records, zeros: Float32, count: Int64, known: Level, edge: int, one: int, other: int) -> int:
    """Upper bound of an edge's cosine, in billionths, from a product in single precision of the sums' first rows.

    Rounded are the two sums, each product, and the additions within its lane and then by halving: 9 roundings and one
    for each element of a lane, each of 2^-24 of |one|·|other| at most (Cauchy–Schwarz). The margin is twice all of
    them and some. Regions whose norms are out of range for that are evaluated.
    """
    norms = region[one].norm * region[other].norm
    if not _LEAST_NORMS < norms < _MOST_NORMS:
        return evaluate(rows, region, zeros, count, known, edge, one, other)
    known[edge] = CLOSE
    count[EVALUATIONS] += 1
    margin = (rows.shape[1] // SINGLE_LANES + 12) * 2.0**-23
    return min(ONE, int(np.ceil((dot_single(rows, one, other) / norms + margin) * ONE)))


@compiled
def _link(region: Records, half: Records, end: int, slot: int) -> None:
    following = region[slot].head
    half[end].at = slot
    half[end].previous = -1
    half[end].next = following
    if following >= 0:
        half[following].previous = end
    region[slot].head = end
    region[slot].degree += 1


@compiled
def _unlink(region: Records, half: Records, end: int) -> None:
    before, after, slot = half[end].previous, half[end].next, half[end].at
    if before >= 0:
        half[before].next = after
    else:
        region[slot].head = after
    if after >= 0:
        half[after].previous = before
    region[slot].degree -= 1


@compiled
def build(
    rows: Float32,
    region: Records,
    half: Records,
    known: Level,
    heap: Records,
    place: Int32,
    count: Int64,
    zeros: Float32,
    width: int,
    eight: bool,
) -> int:
    """Bound all edges of the grid; returns the first patch whose values are out of range, or -1."""
    for patch in range(len(rows)):
        row, column = divmod(patch, width)
        squares = _product(rows, region, zeros, patch, patch)
        if not squares < _LARGEST_NORM * _LARGEST_NORM:  # true for NaN
            return patch
        region[patch].norm = np.sqrt(squares)
        for direction in range(4 if eight else 2):  # left, above, above left, above right: their norms are known
            other_row = row - (direction > 0)
            other_column = column + (1 if direction == 3 else 0 if direction == 1 else -1)
            if other_row < 0 or other_column < 0 or other_column >= width:
                continue
            other, edge = other_row * width + other_column, count[SIZE]
            _link(region, half, 2 * edge, other)
            _link(region, half, 2 * edge + 1, patch)
            append(heap, place, count, edge, pack(estimate(rows, region, zeros, count, known, edge, patch, other), other), patch)
    order(heap, place, count)
    return -1


@compiled
def _absorb_sum(rows: Float32, region: Records, zeros: Float32, slot: int, absorbed: int) -> None:
    """Add the absorbed region's sum to the slot's."""
    own_low, added_low = region[slot].low_row, region[absorbed].low_row
    low_row = own_low if own_low >= 0 else absorbed  # a row that no other region needs
    rounded_off = add_split(rows, zeros, slot, own_low, absorbed, added_low, low_row)
    region[slot].low_row = low_row if rounded_off else -1
    region[slot].norm = np.sqrt(_product(rows, region, zeros, slot, slot))


@compiled
def _bound(similarity: int, sine: float, cosine: float) -> int:
    """Upper bound of a similarity after one side turned by the angle of this sine and cosine; both in billionths."""
    before = min(1.0, (similarity + 1) / ONE)
    if before >= cosine:
        return ONE
    after = before * cosine + np.sqrt(1.0 - before * before) * sine
    return min(ONE, int(np.ceil(after * ONE)) + 1)


@compiled
def merge_top(
    rows: Float32,
    region: Records,
    half: Records,
    known: Level,
    heap: Records,
    place: Int32,
    count: Int64,
    zeros: Float32,
    step: int,
    lazy_degree: int,
) -> None:
    """Merge the regions of the edge on top of the heap."""
    edge, similarity = heap[0].edge, similarity_of(heap[0].priority)
    slot, absorbed = half[2 * edge].at, half[2 * edge + 1].at
    if region[slot].degree < region[absorbed].degree:
        slot, absorbed = absorbed, slot
    remove(heap, place, count, edge)
    _unlink(region, half, 2 * edge)
    _unlink(region, half, 2 * edge + 1)

    own_norm, other_norm = region[slot].norm, region[absorbed].norm
    _absorb_sum(rows, region, zeros, slot, absorbed)
    name, norm = min(region[slot].name, region[absorbed].name), region[slot].norm
    region[slot].name = name

    lazy = region[slot].degree + region[absorbed].degree >= lazy_degree and own_norm > 0.0 and norm > 0.0
    sine, cosine = 1.0, 0.0
    if lazy:  # law of sines, with the similarity that makes the angle largest within its rounding
        between = max(-1.0, (similarity - 1) / ONE)
        sine = min(1.0, other_norm * np.sqrt(1.0 - between * between) / norm)
        cosine = np.sqrt(1.0 - sine * sine)
        lazy = own_norm + other_norm * between > 0.0  # turned by less than a right angle

    end = region[slot].head
    while end >= 0:
        following, own, neighbour = half[end].next, end >> 1, half[end ^ 1].at
        region[neighbour].mark = step
        one, other = min(name, region[neighbour].name), max(name, region[neighbour].name)
        if lazy:
            known[own] = LOOSE
            # neither the bound nor the lower name can take the entry down
            lift(heap, place, count, own, pack(_bound(similarity_of(heap[place[own]].priority), sine, cosine), one), other)
        else:
            rekey(heap, place, count, own, pack(estimate(rows, region, zeros, count, known, own, slot, neighbour), one), other)
        end = following

    end = region[absorbed].head
    while end >= 0:
        following, moved, neighbour = half[end].next, end >> 1, half[end ^ 1].at
        if region[neighbour].mark == step:
            remove(heap, place, count, moved)
            _unlink(region, half, end ^ 1)
        else:
            _link(region, half, end, slot)
            one, other = min(name, region[neighbour].name), max(name, region[neighbour].name)
            rekey(heap, place, count, moved, pack(estimate(rows, region, zeros, count, known, moved, slot, neighbour), one), other)
        end = following
