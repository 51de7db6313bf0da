"""A 4-ary maximum heap of graph edges, indexed by edge, with a total order (compiled code only).

Every live edge has exactly one entry, found through ``place``, so re-keying and removal act on the entry itself and
no stale entries pile up. An entry is 16 bytes, so that four children share one cache line.

A priority packs (similarity, lower region name) into one int64: the similarity is a whole number of billionths
(``ONE`` is a cosine of 1), and of equal similarities the lower name comes first. Equal priorities, which are rare, are
told apart by the higher name in ``second``. No two live edges join the same two regions, so the order is total and
the edge on top does not depend on how the heap came to be.

The functions take ``heap`` (ENTRY by place), ``place`` (int32 by edge, -1: not in the heap) and ``count`` (int64: the
entries, and the re-keyings and removals so far).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.compiled import compiled

ONE = 1_000_000_000
"""A cosine of 1 in the heap's unit."""

ENTRY = np.dtype([("priority", np.int64), ("edge", np.int32), ("second", np.int32)])

SIZE, OPERATIONS = 0, 1  # places in ``count``

_NAME_BITS = 31
_NAME_MASK = (1 << _NAME_BITS) - 1

Entries = Any  # structured array of ENTRY; numba reads its fields as attributes, which NumPy's types do not know
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@compiled
def pack(similarity: int, first: int) -> int:
    """Priority of an edge: ``similarity`` in [-ONE, ONE], ``first`` the lower of its two region names."""
    return ((similarity + ONE) << _NAME_BITS) | (_NAME_MASK - first)


@compiled
def similarity_of(priority: int) -> int:
    """The similarity, in billionths, that ``pack`` put into a priority."""
    return (priority >> _NAME_BITS) - ONE


@compiled
def _sift_up(heap: Entries, place: Int32, hole: int, priority: int, edge: int, second: int) -> None:
    while hole > 0:
        parent = (hole - 1) >> 2
        above = heap[parent].priority
        if above > priority or (above == priority and heap[parent].second < second):
            break
        heap[hole].priority = above
        heap[hole].edge = heap[parent].edge
        heap[hole].second = heap[parent].second
        place[heap[hole].edge] = hole
        hole = parent
    heap[hole].priority = priority
    heap[hole].edge = edge
    heap[hole].second = second
    place[edge] = hole


@compiled
def _sift_down(heap: Entries, place: Int32, size: int, hole: int, priority: int, edge: int, second: int) -> None:
    while True:
        child = 4 * hole + 1
        if child >= size:
            break
        best = child
        best_priority = heap[child].priority
        for other in range(child + 1, min(child + 4, size)):
            rival = heap[other].priority
            if rival > best_priority or (rival == best_priority and heap[other].second < heap[best].second):
                best = other
                best_priority = rival
        if priority > best_priority or (priority == best_priority and second < heap[best].second):
            break
        heap[hole].priority = best_priority
        heap[hole].edge = heap[best].edge
        heap[hole].second = heap[best].second
        place[heap[hole].edge] = hole
        hole = best
    heap[hole].priority = priority
    heap[hole].edge = edge
    heap[hole].second = second
    place[edge] = hole


@compiled
def _settle(heap: Entries, place: Int32, size: int, hole: int, priority: int, edge: int, second: int) -> None:
    """Put an entry into the free place ``hole`` and restore the order, whichever way it is broken."""
    parent = (hole - 1) >> 2
    if hole > 0 and (priority > heap[parent].priority or (priority == heap[parent].priority and second < heap[parent].second)):
        _sift_up(heap, place, hole, priority, edge, second)
    else:
        _sift_down(heap, place, size, hole, priority, edge, second)


@compiled
def append(heap: Entries, place: Int32, count: Int64, edge: int, priority: int, second: int) -> None:
    """Add an edge at the end, out of order; call ``order`` once all edges are in."""
    hole = count[SIZE]
    heap[hole].priority = priority
    heap[hole].edge = edge
    heap[hole].second = second
    place[edge] = hole
    count[SIZE] = hole + 1


@compiled
def order(heap: Entries, place: Int32, count: Int64) -> None:
    """Make a heap of appended entries, in linear time."""
    size = count[SIZE]
    for hole in range((size - 2) >> 2, -1, -1):
        _sift_down(heap, place, size, hole, heap[hole].priority, heap[hole].edge, heap[hole].second)


@compiled
def rekey(heap: Entries, place: Int32, count: Int64, edge: int, priority: int, second: int) -> None:
    """Give an edge of the heap a new priority and higher name."""
    count[OPERATIONS] += 1
    _settle(heap, place, count[SIZE], place[edge], priority, edge, second)


@compiled
def lift(heap: Entries, place: Int32, count: Int64, edge: int, priority: int, second: int) -> None:
    """``rekey`` for an entry that cannot go down: it comes no later in the order than before."""
    count[OPERATIONS] += 1
    _sift_up(heap, place, place[edge], priority, edge, second)


@compiled
def remove(heap: Entries, place: Int32, count: Int64, edge: int) -> None:
    """Take an edge out of the heap."""
    count[OPERATIONS] += 1
    hole = place[edge]
    place[edge] = -1
    last = count[SIZE] - 1
    count[SIZE] = last
    if hole != last:
        _settle(heap, place, last, hole, heap[last].priority, heap[last].edge, heap[last].second)
