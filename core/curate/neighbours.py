"""The rows that are most similar to others (CoCu, section 3.2: vision-driven expansion): a fast search proposes, float64 decides.

What a fast search computes depends on its library, its device and on what is searched together. How far it can be off is bounded; a search
whose candidates could lack one of the nearest for that reason is done again with more candidates. So the neighbours of a row are a function
of the rows alone: equal for any batch, shard, number of threads and device. Equally similar ones are in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ovskit.core.curate.kernels import Float32, Float64, compact, merge, normalise, settle, unit
from ovskit.core.records import Int64
from ovskit.core.runtime.workers import prefetch

if TYPE_CHECKING:
    import torch

    from ovskit.core.formats.streams.row_files import RowFiles

CHUNK = 1 << 15  # rows that are searched at once
_QUERIES = 1 << 13  # whose candidates are settled at once
_SPARE = 8  # candidates beyond what is wanted
_GROW = 4

Keys = Callable[[Int64], Sequence[bytes]]
"""The keys of the rows at some positions, as bytes by which they are ordered."""


class Neighbours(NamedTuple):
    """The nearest rows, the most similar first: ``positions`` (q, n) int64, -1 where there are fewer; ``similarity`` (q, n) float64, the
    cosine."""

    positions: Int64
    similarity: Float64


class Candidates(Protocol):
    """A fast search for rows that may be among the nearest."""

    def search(self, queries: Float32, count: int) -> tuple[Float32, Int64]:
        """The ``count`` rows of the largest product with each of ``queries`` (q, c), of length 1: products (q, count), descending, and
        positions, -1 where there are none."""

    @property
    def error(self) -> float:
        """By how much a product can be off, where no row is left out; infinite where rows are left out, as an index does."""


class ExactSearch:
    """All rows are looked at, in blocks, the next of which is read meanwhile."""

    def __init__(
        self, rows: RowFiles, device: torch.device | None = None, watch: Callable[[Iterator[Any], int], Any] | None = None
    ) -> None:
        """torch searches on ``device``, faiss where there is none. ``watch`` sees the blocks go by, and how many there are."""
        self._rows, self._watch, self._device = rows, watch, device
        # A sum of c products of numbers whose squares sum to 1, in any order, twice over [Higham, Accuracy and Stability, 3.1].
        self._error = 2 * (rows.width + 8) * 2.0**-24

    @property
    def error(self) -> float:
        """See ``Candidates``."""
        return self._error

    def search(self, queries: Float32, count: int) -> tuple[Float32, Int64]:
        """See ``Candidates``."""
        count = min(count, len(self._rows))
        values = np.full((len(queries), count), -np.inf, np.float32)
        positions = np.full((len(queries), count), -1, np.int64)
        top = self._by_torch(queries) if self._device is not None else _by_faiss(queries)
        chunks: Any = prefetch(self._rows.chunks(CHUNK), depth=1)
        if self._watch is not None:
            chunks = self._watch(chunks, -(-len(self._rows) // CHUNK))
        for start, rows in chunks:
            normalise(rows)
            found, places = top(rows, count)
            places[places >= 0] += start
            merge(values, positions, found, places)
        return values, positions

    def _by_torch(self, queries: Float32) -> Callable[[Float32, int], tuple[Float32, Int64]]:
        import torch

        there = torch.from_numpy(queries).to(self._device)

        def top(rows: Float32, count: int) -> tuple[Float32, Int64]:
            block = torch.from_numpy(rows).to(self._device)
            values = np.full((len(queries), count), -np.inf, np.float32)
            places = np.full((len(queries), count), -1, np.int64)
            kept = min(count, len(rows))
            for start in range(0, len(queries), _QUERIES):
                best = (there[start : start + _QUERIES] @ block.T).topk(kept, dim=1)
                values[start : start + _QUERIES, :kept] = best.values.cpu().numpy()
                places[start : start + _QUERIES, :kept] = best.indices.cpu().numpy()
            return values, places

        return top


def _by_faiss(queries: Float32) -> Callable[[Float32, int], tuple[Float32, Int64]]:
    import faiss

    def top(rows: Float32, count: int) -> tuple[Float32, Int64]:
        values, places = faiss.knn(queries, rows, count, metric=faiss.METRIC_INNER_PRODUCT)
        return values, places

    return top


def find_neighbours(
    queries: Float32,
    own: Int64,
    rows: RowFiles,
    count: int,
    candidates: Candidates,
    keys: Keys,
    *,
    near_duplicates: float | None = None,
) -> Neighbours:
    """The ``count`` rows that are most similar to each of ``queries`` (q, c) float32, of length 1.

    ``own`` (q,) int64 is the position of a query among ``rows``, which is left out, or -1; so are rows of which the cosine is
    ``near_duplicates`` or more. Fewer are found where there are no more.
    """
    found = Neighbours(np.full((len(queries), count), -1, np.int64), np.full((len(queries), count), -np.inf))
    limit = np.inf if near_duplicates is None else near_duplicates
    left, wanted = np.arange(len(queries)), count + _SPARE
    while len(left):
        values, positions = candidates.search(np.ascontiguousarray(queries[left]), wanted)
        again = []
        for start in range(0, len(left), _QUERIES):
            part = slice(start, start + _QUERIES)
            these = left[part]
            settled = _settled(queries[these], own[these], rows, positions[part], limit)
            is_open = _may_lack(settled, values[part], positions[part], count, candidates.error, len(rows))
            _by_keys(settled, count, keys, ~is_open)
            kept = min(count, settled.positions.shape[1])
            found.positions[these, :kept] = settled.positions[:, :kept]
            found.similarity[these, :kept] = settled.similarity[:, :kept]
            again.append(these[is_open])
        left, wanted = np.concatenate(again), min(wanted * _GROW, len(rows))
    return found


def _settled(queries: Float32, own: Int64, rows: RowFiles, positions: Int64, limit: float) -> Neighbours:
    wanted, places = compact(positions)
    return Neighbours(*settle(np.ascontiguousarray(queries), unit(rows.take(wanted)), places, positions, own, limit))


def _may_lack(settled: Neighbours, values: Float32, positions: Int64, count: int, error: float, total: int) -> Any:
    """Whether (q,) a row that is no candidate could be among the nearest, given the candidates' fast products."""
    k = positions.shape[1]
    if k >= total:
        return np.zeros(len(positions), bool)
    full = positions[:, -1] >= 0
    least = settled.similarity[:, count - 1] if count <= k else np.full(len(positions), -np.inf)
    if np.isinf(error):  # an index leaves out what it leaves out; more candidates only where too few are left
        return full & np.isneginf(least)
    return full & (least <= values[:, -1].astype(np.float64) + error)


def _by_keys(settled: Neighbours, count: int, keys: Keys, which: Any) -> None:
    """Put equally similar candidates of the queries ``which`` in the order of their keys, as far as it decides the first ``count``."""
    positions, similarity = settled
    near = similarity[:, : count + 1]
    tied = np.flatnonzero(which & ((near[:, 1:] == near[:, :-1]) & np.isfinite(near[:, 1:])).any(axis=1))
    if not len(tied):
        return
    wanted, places = compact(positions[tied])
    names = keys(wanted)
    for row, where in zip(tied.tolist(), places, strict=True):
        kept = int((positions[row] >= 0).sum())
        order = sorted(range(kept), key=lambda c: (-similarity[row, c], names[where[c]]))
        positions[row, :kept] = positions[row, order]
        similarity[row, :kept] = similarity[row, order]
