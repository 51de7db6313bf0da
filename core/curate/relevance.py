"""How well a concept goes with an image: CoCu's guided ranking (section 3.2, equations 6 to 8).

The archive of an anchor image is what its own captions and those of its neighbours name. For concept c with text row t, f is the cosine of
an image row and t, and P_G are the neighbours whose captions name c, N' of them; the anchor is never one of them::

    s^a = f(x, t)                                              Eq. 6
    s^b = (1 + N') f(x, t) / (f(x, t) + sum over P_G f(x_i, t))    Eq. 7
    s   = s^a + s^b                                            Eq. 8

Eq. 7 has no meaning for f <= 0, which the paper does not say anything about: f is at least ``LEAST`` here [choice].
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from ovskit.core.curate.kernels import Float32, Float64, dot
from ovskit.core.records import Int32, Int64
from ovskit.core.runtime.kernels import njit

LEAST = 1e-6
MOST_NEIGHBOURS = 64
"""A concept's neighbours are the bits of one number."""


class Named(NamedTuple):
    """The concepts that captions of images name: ``ids`` (m,) int32, those of one image after the other, each image's ascending and without
    repeats, and ``starts`` (n + 1,) int64, where each image's begin."""

    ids: Int32
    starts: Int64


class Archive(NamedTuple):
    """The concepts of anchors, ranked: those of anchor q from ``starts[q]`` to ``starts[q + 1]``, the best first, equal ones by id.

    ``ids`` (m,) int32; ``score`` (m,) float64, Eq. 8; ``alignment`` (m,) float64, Eq. 6; ``own`` (m,) bool, whether the anchor's captions
    name the concept; ``seen`` (m,) uint64, whose bit i says that those of neighbour i do. ``clamped`` is how many f were below ``LEAST``.
    """

    ids: Int32
    score: Float64
    alignment: Float64
    own: Any
    seen: Any
    starts: Int64
    clamped: int


def rank(
    anchors: Float32,
    others: Float32,
    texts: Float32,
    neighbours: Int64,
    own: Named,
    theirs: Named,
    *,
    include_own: bool = True,
    guided: bool = True,
    score: Literal["eq8", "code"] = "eq8",
) -> Archive:
    """The archives of ``anchors`` (q, c), whose neighbours (q, n) are places in ``others`` (m, c), -1 where there are fewer.

    ``texts`` (C, c) are the rows of the concepts; all rows are float32 of length 1. ``own`` and ``theirs`` are the concepts of the captions
    of anchors and others. ``guided``: s = s^a + s^b, else s = s^a, the naive ranking. ``score`` "code" divides s^a by the largest f of the
    anchor's concepts over the anchor and all its neighbours, as the published code does within one computation.
    """
    sizes, listed, seen, is_own = _collect(neighbours, own.ids, own.starts, theirs.ids, theirs.starts, include_own)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    values, alignment, clamped = _score(anchors, others, texts, neighbours, listed, seen, starts, guided, score == "code")
    order = np.lexsort((listed, -values, np.repeat(np.arange(len(sizes)), sizes)))
    return Archive(listed[order], values[order], alignment[order], is_own[order], seen[order], starts, int(clamped.sum()))


@njit(cache=True, nogil=True)
def _collect(neighbours: Any, own_ids: Any, own_starts: Any, ids: Any, starts: Any, include_own: bool) -> Any:
    """The concepts of each anchor, ascending: how many, which, whose neighbours' they are (bits), and whether it has them itself."""
    count, n = neighbours.shape
    most = 0
    for q in range(count):
        most += own_starts[q + 1] - own_starts[q]
        for i in range(n):
            if neighbours[q, i] >= 0:
                most += starts[neighbours[q, i] + 1] - starts[neighbours[q, i]]
    sizes = np.zeros(count, np.int64)
    listed = np.empty(most, np.int32)
    seen = np.zeros(most, np.uint64)
    is_own = np.zeros(most, np.bool_)
    end = 0
    for q in range(count):
        start = end
        for i in range(n + 1):
            if i < n and neighbours[q, i] < 0:
                continue
            if i < n:
                first, last = starts[neighbours[q, i]], starts[neighbours[q, i] + 1]
            else:
                first, last = own_starts[q], own_starts[q + 1]
            for k in range(first, last):
                concept = ids[k] if i < n else own_ids[k]
                at = start
                while at < end and listed[at] < concept:
                    at += 1
                if at == end or listed[at] != concept:
                    if i == n and not include_own:
                        continue
                    for m in range(end, at, -1):
                        listed[m] = listed[m - 1]
                        seen[m] = seen[m - 1]
                        is_own[m] = is_own[m - 1]
                    listed[at] = concept
                    seen[at] = np.uint64(0)
                    is_own[at] = False
                    end += 1
                if i < n:
                    seen[at] |= np.uint64(1) << np.uint64(i)
                else:
                    is_own[at] = True
        sizes[q] = end - start
    return sizes, listed[:end].copy(), seen[:end].copy(), is_own[:end].copy()


@njit(cache=True, nogil=True)
def _score(anchors: Any, others: Any, texts: Any, neighbours: Any, listed: Any, seen: Any, starts: Any, guided: bool, by_code: bool) -> Any:
    score = np.empty(len(listed))
    alignment = np.empty(len(listed))
    clamped = np.zeros(len(neighbours), np.int64)
    for q in range(len(neighbours)):
        largest = LEAST
        for m in range(starts[q], starts[q + 1]):
            text = texts[listed[m]]
            f = dot(anchors[q], text)
            if f < LEAST:
                clamped[q] += 1
                f = LEAST
            alignment[m] = f
            largest = max(largest, f)
            total, near = f, 0
            if guided or by_code:
                for i in range(neighbours.shape[1]):
                    if neighbours[q, i] < 0:
                        continue
                    has = (seen[m] >> np.uint64(i)) & np.uint64(1)
                    if not (has or by_code):
                        continue
                    g = dot(others[neighbours[q, i]], text)
                    if g < LEAST:
                        clamped[q] += has
                        g = LEAST
                    largest = max(largest, g)
                    if has:
                        total += g
                        near += 1
            score[m] = (1 + near) * f / total if guided else 0.0
        for m in range(starts[q], starts[q + 1]):
            score[m] += alignment[m] / largest if by_code else alignment[m]
    return score, alignment, clamped
