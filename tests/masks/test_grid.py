"""Masks of grid regions against the definition: dense nearest-neighbour scaling, then pycocotools' encoder."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as coco
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovskit.core.masks import grid as rle_grid
from ovskit.core.runtime.errors import InputError

Int32 = npt.NDArray[np.int32]
SETTINGS = settings(deadline=None, max_examples=120)

# Boxes in eighths of a pixel, so that the definition can be computed exactly.
boxes = st.tuples(st.integers(-40, 200), st.integers(1, 300)).map(lambda b: (b[0] / 8, (b[0] + b[1]) / 8))


def cell_of_pixels(cells: int, start: float, stop: float, limit: int) -> list[int]:
    """The definition, in exact arithmetic; -1 for pixels that are in no cell."""
    at = [(Fraction(2 * p + 1, 2) - Fraction(start)) / (Fraction(stop) - Fraction(start)) * cells for p in range(limit)]
    return [math.floor(position) if 0 <= position < cells else -1 for position in at]


def dense(labels: Int32, label: int, rows: list[int], cols: list[int]) -> npt.NDArray[np.uint8]:
    mask = np.zeros((len(rows), len(cols)), np.uint8)
    for y, row in enumerate(rows):
        for x, col in enumerate(cols):
            mask[y, x] = row >= 0 and col >= 0 and labels[row, col] == label
    return mask


def check(found: rle_grid.GridMasks, expected: list[npt.NDArray[np.uint8]]) -> None:
    assert found.areas.dtype == np.int64
    assert found.bboxes.dtype == np.float64
    assert found.bboxes.shape == (len(expected), 4)
    for rle, area, bbox, mask in zip(found.rles, found.areas, found.bboxes, expected, strict=True):
        theirs = coco.encode(np.asfortranarray(mask))
        assert (rle.height, rle.width) == mask.shape
        assert rle.counts == theirs["counts"]
        assert area == mask.sum()
        assert bbox.tolist() == coco.toBbox(theirs).tolist()


@SETTINGS
@given(st.integers(1, 40), boxes, st.integers(1, 50))
def test_edges_are_the_definition(cells: int, box: tuple[float, float], limit: int) -> None:
    found = rle_grid.edges(cells, *box, limit)
    assert found.dtype == np.int32
    cell = cell_of_pixels(cells, *box, limit)
    assert found.shape == (cells + 1,)
    for k in range(cells):
        assert list(range(found[k], found[k + 1])) == [p for p in range(limit) if cell[p] == k]


@pytest.mark.parametrize(("cells", "limit"), [(128, 1024), (128, 640), (128, 480), (49, 7), (7, 49), (3, 1), (10, 3)])
def test_edges_of_a_whole_axis(cells: int, limit: int) -> None:
    found = rle_grid.edges(cells, 0, limit, limit)
    expected = cell_of_pixels(cells, 0, limit, limit)
    assert np.repeat(np.arange(cells), np.diff(found)).tolist() == expected
    assert (found[0], found[-1]) == (0, limit)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Int32, tuple[int, int], tuple[float, float], tuple[float, float]]:
    """Layers of labels from noise to large patches, with an image and the box of the grid in it."""
    layers, gh, gw = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    values = draw(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 3), min_size=1, max_size=4))
    labels = draw(hnp.arrays(np.int32, (layers, gh, gw), elements=st.sampled_from(values), fill=st.just(values[0])))
    size = draw(st.tuples(st.integers(1, 16), st.integers(1, 16)))
    whole = draw(st.booleans())
    spans = [(0.0, float(axis)) if whole else draw(boxes) for axis in size]
    return labels, size, spans[0], spans[1]


@SETTINGS
@given(scenes(), st.data())
def test_regions_equal_dense_scaling(scene: Any, data: st.DataObject) -> None:
    labels, (height, width), vertical, horizontal = scene
    _, gh, gw = labels.shape
    rows, cols = rle_grid.edges(gh, *vertical, height), rle_grid.edges(gw, *horizontal, width)
    present = [(layer, int(value)) for layer in range(len(labels)) for value in np.unique(labels[layer])]
    # In any order, some left out, some twice, some in no grid.
    pairs = data.draw(st.lists(st.sampled_from(present) | st.tuples(st.just(0), st.integers(-5, 5)), max_size=12))
    wanted = np.array(pairs, np.int64).reshape(-1, 2)
    found = rle_grid.nested_rles(labels, wanted, rows, cols, height, width)
    pixel_rows, pixel_cols = cell_of_pixels(gh, *vertical, height), cell_of_pixels(gw, *horizontal, width)
    check(found, [dense(labels[layer], label, pixel_rows, pixel_cols) for layer, label in pairs])


@SETTINGS
@given(scenes())
def test_one_grid(scene: Any) -> None:
    labels, (height, width), vertical, horizontal = scene
    _, gh, gw = labels.shape
    rows, cols = rle_grid.edges(gh, *vertical, height), rle_grid.edges(gw, *horizontal, width)
    wanted = np.unique(labels[0])[::-1]
    found = rle_grid.grid_rles(labels[0], wanted, rows, cols, height, width)
    pixel_rows, pixel_cols = cell_of_pixels(gh, *vertical, height), cell_of_pixels(gw, *horizontal, width)
    check(found, [dense(labels[0], int(label), pixel_rows, pixel_cols) for label in wanted])


@pytest.mark.parametrize("size", [(1024, 1024), (480, 640), (97, 61), (20, 500)])
def test_a_real_grid(size: tuple[int, int]) -> None:
    """128 × 128 cells with regions of all shapes, at sizes where a column of cells is 0, 1, 5 or 8 pixels wide."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:128, :128]
    centres = rng.uniform(0, 128, (60, 2))
    nearest = np.argmin((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2, axis=-1)
    labels = np.stack([nearest, nearest % 7, np.where(rng.random((128, 128)) < 0.1, 99, nearest % 2)]).astype(np.int32)
    rows, cols = rle_grid.edges(128, 0, size[0], size[0]), rle_grid.edges(128, 0, size[1], size[1])
    wanted = np.array([(layer, label) for layer in range(3) for label in np.unique(labels[layer])])
    found = rle_grid.nested_rles(labels, wanted, rows, cols, *size)
    cells = [np.floor((np.arange(n) + 0.5) * 128 / n).astype(int) for n in size]
    check(found, [(labels[layer] == label)[np.ix_(*cells)].astype(np.uint8) for layer, label in wanted])


def test_a_strided_grid_is_read_as_it_looks() -> None:
    labels = np.arange(24, dtype=np.int32).reshape(4, 6) % 5
    edges = rle_grid.edges(2, 0, 5, 5), rle_grid.edges(3, 0, 7, 7)
    wanted = np.unique(labels[::2, ::2])
    turned = rle_grid.grid_rles(labels[::2, ::2], wanted, *edges, 5, 7)
    assert turned.rles == rle_grid.grid_rles(labels[::2, ::2].copy(), wanted, *edges, 5, 7).rles
    assert turned.areas.sum() == 35


def test_regions_that_fall_between_pixels_have_no_area() -> None:
    labels = np.arange(16, dtype=np.int32).reshape(4, 4)
    found = rle_grid.grid_rles(labels, np.arange(16), rle_grid.edges(4, 0, 1, 1), rle_grid.edges(4, 0, 1, 1), 1, 1)
    assert found.areas.tolist() == [0] * 10 + [1] + [0] * 5
    assert found.bboxes[0].tolist() == [0, 0, 0, 0]
    assert found.bboxes[10].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "bad",
    [
        (0, 0.0, 4.0, 4),
        (-1, 0.0, 4.0, 4),
        (4, 0.0, 4.0, 0),
        (4, 3.0, 3.0, 4),
        (4, 3.0, 1.0, 4),
        (4, math.nan, 4.0, 4),
        (4, 0.0, math.inf, 4),
    ],
)
def test_impossible_edges(bad: tuple[int, float, float, int]) -> None:
    with pytest.raises(InputError, match="cannot lay"):
        rle_grid.edges(*bad)


GOOD: dict[str, Any] = {
    "labels": np.zeros((1, 2, 3), np.int32),
    "wanted": np.zeros((1, 2), np.int64),
    "rows": np.array([0, 1, 4], np.int32),
    "cols": np.array([0, 1, 2, 5], np.int32),
    "height": 4,
    "width": 5,
}


def test_the_good_call_is_good() -> None:
    assert rle_grid.nested_rles(**GOOD).areas.tolist() == [20]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((1, 2, 3), np.int64)}, "int32"),
        ({"labels": np.zeros((2, 3), np.int32)}, "shape"),
        ({"wanted": np.zeros((1, 3), np.int64)}, "shape"),
        ({"wanted": np.zeros((1, 2))}, "integers"),
        ({"wanted": np.array([[1, 0]])}, "layers 1 to 1"),
        ({"wanted": np.array([[-1, 0]])}, "layers -1 to -1"),
        ({"wanted": np.array([[0, 2**32]])}, "32 bits"),
        ({"rows": np.array([0, 1, 5], np.int32)}, "row boundaries"),
        ({"rows": np.array([0, 4], np.int32)}, "row boundaries"),
        ({"cols": np.array([-1, 1, 2, 5], np.int32)}, "column boundaries"),
        ({"cols": np.array([0, 3, 2, 5], np.int32)}, "column boundaries"),
        ({"height": 0}, "sizes must be positive"),
        ({"height": 2**20, "width": 2**20}, "below 2\\^32"),
    ],
)
def test_what_does_not_fit_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rle_grid.nested_rles(**{**GOOD, **change})
