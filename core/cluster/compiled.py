"""How the merging kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

# Without ``_nrt`` numba counts references to the arrays around every call inside the loops, each time an atomic
# operation: a third of the running time. Code compiled so can neither allocate nor keep an array. A call that is not
# inlined passes every field of every array on the stack: another fifth.
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False, "forceinline": True}


def compiled(function: Callable[..., Any]) -> Any:
    """numba's ``njit``, released from the GIL, cached, for functions that only work on arrays given to them.

    The cache looks at the file of the outermost function alone: after an edit of a function in another file, delete
    the ``*.nbi`` files next to the caller's.
    """
    return njit(**_OPTIONS)(function)
