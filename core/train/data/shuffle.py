"""The order in which photographs come: round after round, each round in a new random order and each photograph once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def place_at(position: int, count: int, seed: int) -> int:
    """Which of ``count`` photographs is at a position of the endless sequence of shuffled rounds."""
    return int(shuffled(seed, position // count, count)[position % count])


@lru_cache(maxsize=8)
def shuffled(seed: int, turn: int, count: int) -> np.ndarray:
    """The order in one round: int64 (count,), not to be changed."""
    order = np.random.default_rng((seed, turn)).permutation(count)
    order.setflags(write=False)
    return order
