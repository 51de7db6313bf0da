"""Which masks lie in which: coverage(i, j) = |i ∩ j| / |i|, and the test that makes a mask another's ancestor (SOHES, ICLR 2024, §3.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.overlap import intersections
from ovskit.core.records import RunTable

COVER = 0.9
"""The paper's."""


def coverage(a: RunTable, b: RunTable) -> npt.NDArray[np.float64]:
    """How much of mask i of ``a`` lies in mask j of ``b``, |i ∩ j| / |i| (SOHES §3.1): float64 (n, m) in [0, 1].

    0 where i is empty. Raises ``InputError`` if the tables' sizes differ.
    """
    shared = intersections(a, b)
    return np.divide(shared, a.areas[:, None], out=np.zeros(shared.shape), where=shared > 0)


def ancestors(table: RunTable, cover: float = COVER, *, inclusive: bool = False) -> npt.NDArray[np.bool_]:
    """The direct pair test: bool (n, n), true at (i, j) where mask j is an ancestor of mask i.

    It is one if coverage(i, j) > ``cover``, or equal to it if ``inclusive``, and coverage(j, i) < ``cover``. The relation has no cycles,
    since an ancestor is larger, but it is not transitive. n² entries.
    """
    inside = coverage(table, table)
    return ((inside >= cover) if inclusive else (inside > cover)) & (cover > inside.T)
