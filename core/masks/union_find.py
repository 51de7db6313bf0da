"""Union-find: the groups that pairs of things form, for compiled loops.

``parent`` (n,) of any integer type begins as ``arange(n)``; things have one root exactly if they were joined, directly or by others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.runtime.kernels import njit


@njit(nogil=True, cache=True)
def root(parent: npt.NDArray[np.integer[Any]], i: int) -> int:
    """The root of the group of ``i``; the path to it is halved on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
