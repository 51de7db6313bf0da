from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError

from ovskit.core.cluster.lanes import LANES, dot, dot_split


@njit
def compiled_dot(x: Any, rows: Any, row: int) -> float:
    return dot(x, rows, row)


@njit
def compiled_dot_split(x: Any, rows: Any, row: int, low_row: int) -> float:
    return dot_split(x, rows, row, low_row)


def in_lanes(products: npt.NDArray[np.float64]) -> float:
    """The order of addition that the module promises, one float64 addition at a time."""
    lanes = np.zeros(LANES)
    for k, product in enumerate(products):
        lanes[k % LANES] += product
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return float(lanes[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3))
def test_products_are_added_in_the_promised_order(length: int, seed: int, row: int, low_row: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(length) * 10.0 ** rng.integers(-8, 9, length)
    rows = (rng.standard_normal((4, length)) * 10.0 ** rng.integers(-8, 9, length)).astype(np.float32)
    wide = rows.astype(np.float64)
    assert compiled_dot(x, rows, row) == in_lanes(x * wide[row])
    assert compiled_dot_split(x, rows, row, low_row) == in_lanes(x * (wide[row] + wide[low_row]))


def test_other_arrays_do_not_compile() -> None:
    for x, rows in (
        (np.ones(4, np.float32), np.ones((2, 4), np.float32)),
        (np.ones(4), np.ones((2, 4))),
        (np.ones(4), np.ones((2, 8), np.float32)[:, ::2]),
    ):
        with pytest.raises(TypingError, match="contiguous"):
            compiled_dot(x, rows, 0)
