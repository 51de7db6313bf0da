"""The order in which pairs are trained on: shuffled in two levels, so that few tars are open at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovskit.core.formats.pairs.packed import Int64
from ovskit.core.runtime.errors import MissingInputError


class PairOrder:
    """An endless sequence of epochs over units of ``counts`` pairs; each epoch has every pair once, in an order of its own.

    In every epoch the units are shuffled, taken ``open_units`` at a time, and the pairs of such a group shuffled together: as random as
    reading from ``open_units`` tars at a time allows [choice]. What is where depends on ``seed`` (0 or more), ``counts`` and
    ``open_units`` alone, so any process can compute its part, and a run can go on where it was stopped. In memory is the
    permutation of one group. Raises MissingInputError if there is no pair.
    """

    def __init__(self, counts: Sequence[int], *, seed: int, open_units: int = 8) -> None:
        self._counts = np.array(counts, np.int64)
        self._seed = seed
        self._size = max(1, open_units)
        self.total = int(self._counts.sum())
        if not self.total:
            raise MissingInputError("there are no image-text pairs to take an order of")
        self._epoch = self._group = -1
        self._units = self._ends = self._starts = self._order = np.zeros(0, np.int64)

    def at(self, position: int) -> tuple[int, int]:
        """The unit, and the place among its pairs, at ``position`` (0 or more) of the sequence."""
        epoch, inside = divmod(position, self.total)
        if epoch != self._epoch:
            self._enter_epoch(epoch)
        group = int(np.searchsorted(self._ends, inside, "right"))
        if group != self._group:
            self._enter_group(group)
        before = int(self._ends[group - 1]) if group else 0
        drawn = int(self._order[inside - before])
        k = int(np.searchsorted(self._starts, drawn, "right")) - 1
        return int(self._members(group)[k]), drawn - int(self._starts[k])

    def batch(self, step: int, rank: int, world: int, size: int) -> list[tuple[int, int]]:
        """The ``size`` pairs that process ``rank`` of ``world`` takes in optimizer step ``step``, from 0: the processes' batches, one after
        the other, are the next ``world`` · ``size`` of the sequence."""
        first = (step * world + rank) * size
        return [self.at(position) for position in range(first, first + size)]

    def _enter_epoch(self, epoch: int) -> None:
        filled = np.flatnonzero(self._counts)
        self._units = filled[np.random.default_rng((self._seed, epoch)).permutation(len(filled))]
        ends: Int64 = np.cumsum(self._counts[self._units])
        self._ends = ends[np.minimum(np.arange(self._size - 1, len(ends) + self._size - 1, self._size), len(ends) - 1)]
        self._epoch, self._group = epoch, -1

    def _enter_group(self, group: int) -> None:
        counts = self._counts[self._members(group)]
        self._starts = np.cumsum(counts) - counts
        self._order = np.random.default_rng((self._seed, self._epoch, group)).permutation(int(counts.sum()))
        self._group = group

    def _members(self, group: int) -> Int64:
        return self._units[group * self._size : (group + 1) * self._size]
