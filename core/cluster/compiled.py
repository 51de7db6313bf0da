"""How the merging kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovskit.core.runtime.kernels import njit

# Without ``_nrt`` numba counts references to the arrays around every call inside the loops, each time an atomic
# operation: a third of the running time. Code compiled so can neither allocate nor keep an array. A call that is not
# inlined passes every field of every array on the stack: another fifth.
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False, "forceinline": True}


def compiled(function: Callable[..., Any]) -> Any:
    """numba's ``njit``, released from the GIL, cached, for functions that only work on arrays given to them."""
    return njit(**_OPTIONS)(function)
