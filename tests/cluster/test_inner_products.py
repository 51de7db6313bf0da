from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError

from ovskit.core.cluster.inner_products import LANES, SINGLE_LANES, add_split, dot, dot_single, dot_split
from ovskit.core.runtime.kernels import njit


@njit
def compiled_dot(x: Any, rows: Any, row: int) -> float:
    return dot(x, rows, row)


@njit
def compiled_dot_split(rows: Any, zeros: Any, one: int, one_low: int, other: int, other_low: int) -> float:
    return dot_split(rows, zeros, one, one_low, other, other_low)


@njit
def compiled_dot_single(rows: Any, one: int, other: int) -> float:
    return dot_single(rows, one, other)


@njit
def compiled_add_split(rows: Any, zeros: Any, one: int, one_low: int, other: int, other_low: int, to: int) -> bool:
    return add_split(rows, zeros, one, one_low, other, other_low, to)


def in_lanes(products: npt.NDArray[Any], width: int = LANES) -> float:
    """The order of addition that the module promises, one addition at a time."""
    lanes = np.zeros(width, products.dtype)
    for k, product in enumerate(products):
        lanes[k % width] += product
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return float(lanes[0])


def uneven_rows(rng: np.random.Generator, length: int) -> npt.NDArray[np.float32]:
    return (rng.standard_normal((4, length)) * 10.0 ** rng.integers(-8, 9, length)).astype(np.float32)


lengths, seeds, row_numbers, low_rows = st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(-1, 3)


@settings(max_examples=60, deadline=None)
@given(lengths, seeds, row_numbers, low_rows, row_numbers, low_rows)
def test_products_are_added_in_the_promised_order(length: int, seed: int, row: int, low: int, other: int, other_low: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(length) * 10.0 ** rng.integers(-8, 9, length)
    rows, zeros = uneven_rows(rng, length), np.zeros(length, np.float32)
    wide = np.concatenate([rows, zeros[None]]).astype(np.float64)  # row -1 is the last: zeros
    assert compiled_dot(x, rows, row) == in_lanes(x * wide[row])
    found = compiled_dot_split(rows, zeros, row, low, other, other_low)
    assert found == in_lanes((wide[row] + wide[low]) * (wide[other] + wide[other_low]))
    assert compiled_dot_single(rows, row, other) == in_lanes(rows[row] * rows[other], SINGLE_LANES)


@settings(max_examples=60, deadline=None)
@given(lengths, seeds, st.sampled_from([(0, -1, 1, -1, 1), (0, 2, 1, -1, 2), (0, -1, 1, 3, 1), (0, 2, 1, 3, 2)]), st.booleans())
def test_a_split_sum_is_that_of_float64_in_two_rows(length: int, seed: int, at: tuple[int, int, int, int, int], whole: bool) -> None:
    rows, zeros = uneven_rows(np.random.default_rng(seed), length), np.zeros(length, np.float32)
    if whole:  # nothing to round off
        rows = np.sign(rows)
    wide = np.concatenate([rows, zeros[None]]).astype(np.float64)
    one, one_low, other, other_low, to = at
    total = (wide[one] + wide[one_low]) + (wide[other] + wide[other_low])
    expected = rows.copy()
    expected[one] = total
    expected[to] = total - expected[one].astype(np.float64)
    assert compiled_add_split(rows, zeros, *at) == expected[to].any()
    np.testing.assert_array_equal(rows, expected)


def test_other_arrays_do_not_compile() -> None:
    for x, rows in (
        (np.ones(4, np.float32), np.ones((2, 4), np.float32)),
        (np.ones(4), np.ones((2, 4))),
        (np.ones(4), np.ones((2, 8), np.float32)[:, ::2]),
    ):
        with pytest.raises(TypingError, match="contiguous"):
            compiled_dot(x, rows, 0)
    with pytest.raises(TypingError, match="float32 vector zeros"):
        compiled_dot_split(np.ones((2, 4), np.float32), np.zeros(4), 0, -1, 1, -1)
