"""Greedy merging of adjacent regions by cosine similarity: the global clustering of SOHES.

SOHES (Cao et al., ICLR 2024, §3.1 self-exploration, "global clustering"): every patch starts as a region; the two
adjacent regions of the highest cosine similarity merge again and again, and the merged feature is the area-weighted
mean. A partition is recorded when the highest similarity first falls below each threshold. One sequence of merges
serves all thresholds. It is not monotone, because a merge can make a pair more alike than any pair before.

**How it works.** A region's feature is kept as the sum of its patches' raw features, which has the direction of the
mean. Every pair of adjacent regions is one edge with one entry in an indexed heap (``edge_heap``). A merge re-points
the absorbed region's edges to the absorber (the one with more edges), kills those that became duplicates through a
mark per region, and re-keys the edges of the union. Edges are half-edges in doubly linked lists, so an edge dies in
constant time. With N patches of C channels, E = O(N) edges and d edges at a merged region, building is O(E·C) and
each merge O(C + d·(C + log E)).

**Lazy evaluation.** An edge is keyed by an upper bound of its similarity, and evaluated only once it reaches the top
of the heap. The order is total and an entry's key is never below its true one, so an evaluated edge on top is the true
best pair and the result is the one of full evaluation. There are two bounds. The close one is an inner product in
single precision plus a rigorous margin (some 1e-6), which reads half the memory; hardly any edge is evaluated that does
not merge next. The loose one makes the C in d·C go away for a union with many edges: if the absorber's feature turned
by the angle δ, then, angles obeying the triangle inequality, the angle to any neighbour shrank by at most δ. It is
loosened again at each merge, and replaced by the close one on top of the heap. It costs O(1) + heap per edge of the
union: features without any structure but a common direction, which make one region with thousands of edges, are the
slow case (seconds at 128 × 128).

**Exactness.** Sums are held to 48 bits in two float32 rows: a region of two or more patches owns at least two rows of
the feature buffer, and the second takes what the first rounded off. Sums of float16 features are thereby exact in
practice, and no memory is added to the buffer. Inner products are float64 in an order fixed by definition (``lanes``).

Left open by the paper, and our **choices**:

- A similarity is a cosine rounded to whole billionths, as is a threshold. Cosines that are equal in exact arithmetic
  (patches that repeat, sums that are multiples of one another) come out some 1e-16 apart; rounded they are the ties
  that they should be, while for features without such ties the order is that of the unrounded cosines.
- Ties: the pair whose regions have the row-major lowest patches, compared by the lower one first.
- A zero vector has similarity 0 with everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.compiled import compiled
from ovskit.core.cluster.edge_heap import ENTRY, ONE, OPERATIONS, SIZE, pack, rekey, similarity_of
from ovskit.core.cluster.region_graph import (
    EVALUATIONS,
    EXACT,
    HALF,
    LOOSE,
    REGION,
    Float32,
    Int32,
    Int64,
    Level,
    Records,
    build,
    estimate,
    evaluate,
    merge_top,
)
from ovskit.core.runtime import kernels
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.kernels import njit

LAZY_DEGREE = 24
"""Unions with at least this many edges are bounded by angles first. A choice, by measurement; it does not change results."""

_MOST_PATCHES = 1 << 27


MERGED = np.dtype([("first", np.int32), ("second", np.int32), ("similarity", np.int64)])


@dataclass(frozen=True, slots=True)
class MergeSequence:
    """The merges of one feature grid, in order.

    ``first[k] < second[k]``, int32: the regions merged at step ``k``, each named by its lowest row-major patch index;
    the union keeps the name ``first[k]``. ``similarity[k]``, float64 in [-1, 1]: their cosine just before, in whole
    billionths. ``evaluations`` (cosines estimated or computed) and ``heap_operations`` (entries re-keyed or removed) measure the
    work done without a clock.
    """

    height: int
    width: int
    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    similarity: npt.NDArray[np.float64]
    evaluations: int
    heap_operations: int


def merge_sequence(
    features: npt.NDArray[np.float32],
    *,
    stop_similarity: float | None,
    stop_count: int = 1,
    connectivity: Literal[4, 8] = 4,
) -> MergeSequence:
    """Merge the most similar adjacent regions until they are too different or few enough.

    ``features``: (h, w, c) float32, C-contiguous and writable, any scale, not normalised. **It is overwritten**: the
    sums are built in place, and about 140 bytes per patch (230 for 8-connectivity) are allocated besides. Merging stops
    before the first pair whose similarity is below ``stop_similarity`` (strictly; None: never) and as soon as
    ``stop_count`` regions are left.
    ``connectivity``: patches that share a side (4), or a corner too (8).

    The result is the same on every machine. Raises ``InputError`` for an empty grid and for values that are NaN,
    infinite or beyond 1e30 (then ``features`` is unchanged), ``UsageError`` for options out of range, and
    ``ValueError`` for an array that is not as described.
    """
    if features.ndim != 3 or features.dtype != np.float32 or not features.flags.c_contiguous or not features.flags.writeable:
        raise ValueError(f"features must be (h, w, c), float32, C-contiguous and writable, not {features.dtype} {features.shape}")
    height, width, channels = features.shape
    if features.size == 0:
        raise InputError(f"feature grid of {height}×{width} patches with {channels} channels is empty: nothing to cluster")
    if height * width > _MOST_PATCHES:
        raise InputError(
            f"feature grid of {height}×{width} patches is too large to cluster (at most {_MOST_PATCHES}): extract at a smaller size"
        )
    if connectivity not in (4, 8):
        raise UsageError(f"connectivity is {connectivity}: give 4 or 8")
    if stop_count < 1:
        raise UsageError(f"cannot merge down to {stop_count} regions: give a count of at least 1")
    if stop_similarity is not None and np.isnan(stop_similarity):
        raise UsageError("the similarity to stop at is NaN: give a number, usually between -1 and 1")

    floor = -ONE if stop_similarity is None else int(_billionths(stop_similarity))
    patches = height * width
    edges = height * (width - 1) + (height - 1) * width
    if connectivity == 8:
        edges += 2 * (height - 1) * (width - 1)
    region = np.zeros(patches, REGION)
    region["name"] = np.arange(patches)
    region["low_row"] = region["head"] = region["mark"] = -1
    merged = np.empty(patches - 1, MERGED)
    count = np.zeros(3, np.int64)
    steps, bad = _merge_all(
        features.reshape(patches, channels),
        region,
        np.empty(2 * edges, HALF),
        np.empty(edges, np.uint8),
        np.empty(edges, ENTRY),
        np.empty(edges, np.int32),
        count,
        np.zeros(channels, np.float32),
        merged,
        width,
        connectivity == 8,
        floor,
        stop_count,
        LAZY_DEGREE,
    )
    if bad >= 0:
        row, column = divmod(bad, width)
        raise InputError(f"features of the patch in row {row}, column {column} are NaN, infinite or beyond 1e30: extract them again")
    first, second, similarity = (np.ascontiguousarray(merged[name][:steps]) for name in ("first", "second", "similarity"))
    return MergeSequence(height, width, first, second, similarity / ONE, int(count[EVALUATIONS]), int(count[OPERATIONS]))


def snapshot_steps(sequence: MergeSequence, thresholds: Sequence[float] | npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int32]:
    """How many merges were done when the best similarity first fell below each threshold (strictly): (m,) int32.

    That is the first ``k`` with ``similarity[k] < threshold``, else the length of the sequence; later merges may
    be above the threshold again. The sequence must have been continued down to the lowest threshold.
    """
    lowest = np.minimum.accumulate(_billionths(sequence.similarity))
    return np.searchsorted(-lowest, -_billionths(thresholds), side="right").astype(np.int32)


def partition(sequence: MergeSequence, step: int) -> npt.NDArray[np.int32]:
    """The regions after the first ``step`` merges: (h, w) int32, each patch labelled with its region's lowest patch index.

    Raises ``ValueError`` if the sequence has fewer than ``step`` merges.
    """
    if not 0 <= step <= len(sequence.first):
        raise ValueError(f"step {step} is outside the sequence of {len(sequence.first)} merges")
    return _label(sequence.first[:step], sequence.second[:step], sequence.height * sequence.width).reshape(sequence.height, sequence.width)


def _billionths(similarity: Any) -> npt.NDArray[np.int64]:
    return np.rint(np.clip(np.asarray(similarity, np.float64), -2.0, 2.0) * ONE).astype(np.int64)


@njit(nogil=True, cache=True)
def _label(first: npt.NDArray[np.int32], second: npt.NDArray[np.int32], patches: int) -> npt.NDArray[np.int32]:
    label = np.arange(patches).astype(np.int32)
    for step in range(len(first)):
        label[second[step]] = first[step]
    for patch in range(patches):  # a parent has a lower index than its child, so it already has its final label
        label[patch] = label[label[patch]]
    return label


@compiled
def _merge_all(
    rows: Float32,
    region: Records,
    half: Records,
    known: Level,
    heap: Records,
    place: Int32,
    count: Int64,
    zeros: Float32,
    merged: Records,
    width: int,
    eight: bool,
    floor: int,
    stop_count: int,
    lazy_degree: int,
) -> tuple[int, int]:
    """The whole sequence, into ``merged``: (merges, first patch whose values are out of range or -1)."""
    bad = build(rows, region, half, known, heap, place, count, zeros, width, eight)
    steps = 0
    while bad < 0 and count[SIZE] > 0 and len(rows) - steps > stop_count:
        edge, best = heap[0].edge, similarity_of(heap[0].priority)
        if best < floor:  # similarity or bound: no edge is above it
            break
        one, other = half[2 * edge].at, half[2 * edge + 1].at
        first, second = min(region[one].name, region[other].name), max(region[one].name, region[other].name)
        if known[edge] != EXACT:
            if known[edge] == LOOSE:
                similarity = estimate(rows, region, zeros, count, known, edge, one, other)
            else:
                similarity = evaluate(rows, region, zeros, count, known, edge, one, other)
            rekey(heap, place, count, edge, pack(similarity, first), second)
            continue
        merged[steps].first = first
        merged[steps].second = second
        merged[steps].similarity = best
        merge_top(rows, region, half, known, heap, place, count, zeros, steps, lazy_degree)
        steps += 1
    return steps, bad


def is_compiled() -> bool:
    """Whether the kernel's machine code is cached from an earlier run; compiling it takes some ten seconds."""
    return kernels.is_compiled(_merge_all)
