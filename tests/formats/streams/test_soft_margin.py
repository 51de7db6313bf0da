"""Soft margins against OpenCV's bilinear scaling of the whole map, grids against the mean of each cell, and what is neither."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams.soft_margin import SoftGrid, SoftMargin, read_soft_margin
from ovskit.core.masks.grid import edges
from ovskit.core.runtime.errors import InputError

GRID = np.random.default_rng(0).normal(0, 0.3, (7, 9)).astype(np.float32)


def whole(height: int, width: int) -> np.ndarray:
    return np.asarray(cv2.resize(GRID, (width, height), interpolation=cv2.INTER_LINEAR))


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_any_box_of_it_is_that_of_the_whole_map(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    top, left = int(random.integers(0, height)), int(random.integers(0, width))
    box = (top, left, int(random.integers(top, height)) + 1, int(random.integers(left, width)) + 1)
    found = SoftMargin((7, 9), (0, 0), GRID).in_box(box, height, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole(height, width)[box[0] : box[2], box[1] : box[3]], atol=1e-5)


def test_some_cells_are_enough_for_the_pixels_between_them() -> None:
    some = SoftMargin((7, 9), (2, 3), GRID[2:6, 3:8])
    expected = whole(70, 90)
    # From the centre of the first of the cells to that of the last.
    np.testing.assert_allclose(some.in_box((25, 35, 55, 75), 70, 90), expected[25:55, 35:75], atol=1e-5)
    # Beyond, as the outermost are.
    centres = np.arange(3, 8) * 10 + 4.5
    np.testing.assert_allclose(some.in_box((0, 0, 1, 90), 70, 90)[0], np.interp(np.arange(90), centres, GRID[2, 3:8]), atol=1e-5)
    assert SoftMargin((7, 9), (6, 8), GRID[6:, 8:]).in_box((0, 0, 70, 90), 70, 90) == pytest.approx(GRID[6, 8])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_is_stored_is_right_to_half_a_step(scale: float) -> None:
    kept = SoftMargin((7, 9), (1, 2), GRID[1:5, 2:8] * np.float32(scale))
    stored = json.loads(json.dumps(kept.to_json()))
    found = read_soft_margin({"source": "final", "soft": stored}, "mask 3", 70, 90)
    assert isinstance(found, SoftMargin)
    assert (found.grid, found.at) == (kept.grid, kept.at)
    np.testing.assert_allclose(found.values, kept.values, atol=0.501 * stored["step"])
    assert np.abs(found.values).max() == pytest.approx(np.abs(kept.values).max(), rel=1e-6)


def test_a_margin_of_nothing_and_no_margin() -> None:
    found = read_soft_margin({"soft": SoftMargin((2, 2), (0, 0), np.zeros((2, 2), np.float32)).to_json()}, "mask 3", 70, 90)
    assert isinstance(found, SoftMargin)
    assert not found.values.any()
    assert read_soft_margin({"source": "final"}, "mask 3", 70, 90) is None


@pytest.mark.parametrize(
    "change",
    [
        {"grid": [7]}, {"grid": [7, 9, 1]}, {"grid": "79"}, {"grid": [7.0, 9]}, {"grid": [True, 9]}, {"grid": [6, 9]},
        {"grid": [1 << 17, 9]},
        {"at": [-1, 0]}, {"at": [1, 0]}, {"at": None}, {"size": [7, 8]}, {"size": [-1, -63]}, {"size": [0, 9]}, {"step": "0.1"},
        {"step": -0.1}, {"step": float("nan")}, {"step": float("inf")}, {"step": True}, {"values": "%%%"}, {"values": 7}, {"values": ""},
    ],
)  # fmt: skip
def test_what_is_not_one(change: dict[str, Any]) -> None:
    stored = {**SoftMargin((7, 9), (0, 0), GRID).to_json(), **change}
    with pytest.raises(InputError, match=r"mask 3.*soft"):
        read_soft_margin({"soft": stored}, "mask 3", 70, 90)


@pytest.mark.parametrize("stored", [7, "soft", [], {}])
def test_what_is_not_even_an_object_of_it(stored: object) -> None:
    with pytest.raises(InputError, match=r"mask 3.*soft"):
        read_soft_margin({"soft": stored}, "mask 3", 70, 90)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_grids_margin_is_how_far_the_mask_covers_each_cell(seed: int, crop: bool) -> None:
    random = np.random.default_rng(seed)
    height, width, rows, cols = (int(number) for number in random.integers(1, (60, 60, 30, 30)))

    def box_within(top: int, left: int, bottom: int, right: int) -> tuple[int, int, int, int]:
        y, x = int(random.integers(top, bottom)), int(random.integers(left, right))
        return y, x, int(random.integers(y, bottom)) + 1, int(random.integers(x, right)) + 1

    area = box_within(0, 0, height, width) if crop else (0, 0, height, width)
    box = box_within(0, 0, height, width)
    whole = np.zeros((height, width), np.uint8)
    inside = whole[box[0] : box[2], box[1] : box[3]]
    inside[:] = random.random(inside.shape) < 0.5
    found = SoftGrid((rows, cols), area if crop else None).margin_of(np.ascontiguousarray(inside), box, height, width)

    # A grid that is finer than the pixels is one of pixels.
    grid = min(rows, area[2] - area[0]), min(cols, area[3] - area[1])
    y, x = edges(grid[0], area[0], area[2], height), edges(grid[1], area[1], area[3], width)
    expected = np.array([[whole[y[i] : y[i + 1], x[j] : x[j + 1]].mean() for j in range(grid[1])] for i in range(grid[0])])
    assert found.grid == grid
    cells = np.full(grid, -1, np.float32)
    cells[found.at[0] : found.at[0] + found.values.shape[0], found.at[1] : found.at[1] + found.values.shape[1]] = found.values
    np.testing.assert_allclose(cells, 2 * expected - 1, atol=1e-6)
    # The cells around the box are enough for every pixel of it.
    in_full = SoftMargin(grid, (0, 0), cells, area).in_box(box, height, width)
    np.testing.assert_allclose(found.in_box(box, height, width), in_full, atol=1e-5)


@pytest.mark.parametrize("kept", [SoftGrid((7, 9)), SoftGrid((7, 9), (3, 5, 70, 64))])
def test_a_grid_is_kept_as_it_is(kept: SoftGrid) -> None:
    stored = json.loads(json.dumps(kept.to_json()))
    assert read_soft_margin({"soft": stored}, "mask 3", 70, 90) == kept
    assert stored.get("box") in (None, [5, 3, 59, 67])


@pytest.mark.parametrize(
    "stored",
    [
        {"grid": [0, 9]}, {"grid": [7, 1 << 17]}, {"grid": [7, 9.0]}, {"grid": 7}, {"grid": [7, 9], "step": 0.1}, {"box": [0, 0, 9, 9]},
        {"grid": [7, 9], "box": None}, {"grid": [7, 9], "box": [0, 0, 9]}, {"grid": [7, 9], "box": [0, 0, 9, 9, 9]},
        {"grid": [7, 9], "box": [0, 0, 9.0, 9]}, {"grid": [7, 9], "box": [0, 0, 0, 9]}, {"grid": [7, 9], "box": [-1, 0, 9, 9]},
        {"grid": [7, 9], "box": [0, 0, 91, 9]}, {"grid": [7, 9], "box": [0, 69, 9, 2]},
    ],
)  # fmt: skip
def test_what_is_no_grid(stored: object) -> None:
    with pytest.raises(InputError, match=r"mask 3.*soft"):
        read_soft_margin({"soft": stored}, "mask 3", 70, 90)
