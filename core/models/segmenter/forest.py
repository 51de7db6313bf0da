"""From the ancestor probabilities of an image's masks to a forest (SOHES §3.2: "topological sorting").

The paper thresholds P̂ and sorts; how cycles are broken and which ancestor becomes the parent are choices, made so that
the result is a function of the probabilities alone and not of the masks' order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def forest(probabilities: npt.ArrayLike, areas: npt.ArrayLike, threshold: float = 0.5) -> Ints:
    """The parent of every mask, int64 (n,), −1 for a root; following parents always ends at a root.

    ``probabilities`` (n, n): [i, j] that mask i is an ancestor of mask j; the diagonal is not looked at. ``areas`` (n,) in any
    unit. The edges are the pairs of at least ``threshold``, without those that ``acyclic`` drops. The parent is the nearest
    ancestor: the deepest one, where depth is the longest chain of ancestors above a mask; among equally deep ones the most
    probable, then the smallest, then the first. Raises ValueError for other shapes or values that are not finite.
    """
    chance, size = np.asarray(probabilities, dtype=np.float64), np.asarray(areas, dtype=np.float64)
    if chance.ndim != 2 or chance.shape[0] != chance.shape[1] or size.shape != chance.shape[:1]:
        raise ValueError(f"probabilities {chance.shape} and areas {size.shape}; expected (n, n) and (n,)")
    if not (np.isfinite(chance).all() and np.isfinite(size).all()):
        raise ValueError("a probability or an area is not finite")
    if not len(size):
        return np.zeros(0, dtype=np.int64)
    edges = acyclic(chance, size, threshold)
    depth = _depths(edges)
    nearest = edges & (depth[:, None] == np.where(edges, depth[:, None], -1).max(0))
    for key in (chance, -np.broadcast_to(size[:, None], chance.shape)):
        nearest &= key == np.where(nearest, key, -np.inf).max(0)
    return np.where(edges.any(0), nearest.argmax(0), -1).astype(np.int64)


def acyclic(probabilities: Floats, areas: Floats, threshold: float = 0.5) -> Bools:
    """The pairs of at least ``threshold`` without cycles, bool (n, n): every cycle is broken at its weakest edge.

    An edge i → j is dropped if there is a way from j back to i along stronger edges: it is then the weakest of a cycle, and
    this is what taking away the weakest edge of a cycle, again and again, ends at. An edge's fate depends on stronger edges only, so a
    higher threshold gives a subset of a lower one's. Equal edges: the one with the larger ancestor is stronger, then
    that with the smaller descendant, then the first in row-major order.
    """
    edges = np.asarray(probabilities) >= threshold
    np.fill_diagonal(edges, False)
    inside = _between_cycles(edges)
    if len(inside):
        block = np.ix_(inside, inside)
        edges[block] &= ~_weakest(_ranks(probabilities[block], areas[inside], edges[block]))
    return edges


def _between_cycles(edges: Bools) -> Ints:
    """The nodes that are on a cycle or on a way from one to another: what is left when roots and leaves are peeled off.

    Most masks are not among them, and ``_weakest`` takes cubic time.
    """
    nodes = np.arange(len(edges))
    while True:
        left = edges[np.ix_(nodes, nodes)]
        keep = left.any(0) & left.any(1)
        if keep.all():
            return nodes
        nodes = nodes[keep]


def _ranks(probabilities: Floats, areas: Floats, edges: Bools) -> Ranks:
    """The edges numbered from 1, the weakest, without ties; 0 where there is none."""
    ancestor, descendant = edges.nonzero()
    order = np.lexsort((-descendant, -ancestor, -areas[descendant], areas[ancestor], probabilities[ancestor, descendant]))
    ranks = np.zeros(edges.shape, dtype=np.int32)  # what bounds ``_weakest`` is memory traffic
    ranks[ancestor[order], descendant[order]] = np.arange(1, len(order) + 1)
    return ranks


def _weakest(ranks: Ranks) -> Bools:
    """The edges that have a way back along stronger ones only.

    ``widest[i, j]`` becomes the rank of the weakest edge on the best way from i to j (Floyd and Warshall's recurrence with
    max and min in place of min and plus).
    """
    widest = ranks.copy()
    for via in range(len(ranks)):
        np.maximum(widest, np.minimum(widest[:, via, None], widest[via]), out=widest)
    return (ranks > 0) & (ranks < widest.T)


def _depths(edges: Bools) -> Ints:
    """The number of edges on the longest way to each node of an acyclic graph, by peeling off its roots."""
    depth = np.full(len(edges), -1, dtype=np.int64)
    waiting = edges.sum(0)
    level = 0
    while (ready := (waiting == 0) & (depth < 0)).any():
        depth[ready] = level
        waiting = waiting - edges[ready].sum(0)
        level += 1
    return depth
