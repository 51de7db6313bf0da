"""Which pair stands at each place of a training run's batches, and which of its captions: functions of seed, step and rank alone.

The batches of a step, those of all ranks one after the other, are the next places of the endless sequence of ``PairOrder``. All that is
drawn for a place depends on the seed and the place, so it does not matter into how many batches a step is split.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ovskit.core.formats.pairs.options import PairInputs
from ovskit.core.formats.pairs.order import PairOrder
from ovskit.core.formats.pairs.pair_set import PairSet
from ovskit.core.formats.pairs.record import Pair
from ovskit.core.runtime.failures import Failures

OPEN_UNITS = 8
"""Tars that are open at a time, and shuffled together [choice]."""
_MOST = 64  # pairs that are tried for a place
_DRAWS = 0x7061  # sets apart what is drawn for a place from what PairOrder draws


class Drawn(NamedTuple):
    """A pair, and the generator of all that is drawn for its place."""

    pair: Pair
    rng: np.random.Generator


class PairDraws:
    """The pairs of a run. Any thread may call it.

    ``total`` is how many pairs there are, ``key`` a digest of what they are: where the files are below their root, and how many pairs each
    has. Raises what ``PairSet`` and ``PairOrder`` raise.
    """

    def __init__(self, named: PairInputs, *, seed: int, failures: Failures, index_folder: str | None = None) -> None:
        self._lock = threading.Lock()
        self._seed = seed
        self._pairs = PairSet(
            named.inputs, root=named.root, columns=named.columns, failures=failures, open_units=OPEN_UNITS, index_folder=index_folder
        )
        counts = self._pairs.counts()
        self._order = PairOrder(counts, seed=seed, open_units=OPEN_UNITS)
        self.total = self._order.total
        self.key = _digest(self._pairs, counts)

    def batch(self, step: int, rank: int, world: int, size: int) -> list[Drawn]:
        """The ``size`` pairs of batch ``rank`` of the ``world`` batches of optimizer step ``step``, from 0."""
        first = (step * world + rank) * size
        return self._at([(position, 0) for position in range(first, first + size)])

    def instead(self, step: int, rank: int, world: int, size: int, k: int) -> Iterator[Drawn]:
        """What takes place ``k`` of a batch whose own pair cannot be used, in the order in which they are tried.

        They are the pairs at the same place of this rank's batches in the next steps, where they are used as well: a rule, so it does not
        matter when or where it is applied. There are a few tens of them.
        """
        first = (step * world + rank) * size + k
        for turn in range(1, min(_MOST, self.total)):
            yield self._at([(first + turn * world * size, turn)])[0]

    def _at(self, positions: list[tuple[int, int]]) -> list[Drawn]:
        with self._lock:
            pairs = self._pairs.at([self._order.at(position) for position, _ in positions])
        rngs = [np.random.default_rng((self._seed, position, turn, _DRAWS)) for position, turn in positions]
        return [Drawn(pair, rng) for pair, rng in zip(pairs, rngs, strict=True)]


def _digest(pairs: PairSet, counts: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    for path, count in zip(pairs.units, counts, strict=True):
        digest.update(f"{os.path.relpath(path, pairs.root)}\0{count}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
