"""Regions painted from masks, cut as squares, given to patches, and used to correct a map of classes: against loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.predict.dense.patch_regions import at_grid, patch_regions
from ovskit.core.predict.dense.regions import corrected, painted, squares
from ovskit.core.records import Image, Mask, MaskSet

SEEDS, SIDES = st.integers(0, 2**31 - 1), st.integers(1, 24)


def masks_of(shapes: list[np.ndarray], height: int, width: int, *, table: bool) -> MaskSet:
    image = Image(1, "a.png", width, height)
    masks = []
    for k, inside in enumerate(shapes):
        outline = rle.encode(inside)
        masks.append(Mask(7 + k, 1, outline, rle.area(outline), rle.bbox(outline)))
    return MaskSet(image, tuple(masks), run_table([mask.rle for mask in masks]) if table and masks else None)


@given(SEEDS, SIDES, SIDES, st.integers(0, 6), st.booleans())
def test_smaller_masks_lie_on_larger_ones(seed: int, height: int, width: int, count: int, table: bool) -> None:
    random = np.random.default_rng(seed)
    shapes = [random.random((height, width)) < random.choice([0.1, 0.5, 0.9]) for _ in range(count)]
    expected = np.full((height, width), -1)
    for area in sorted({int(shape.sum()) for shape in shapes}, reverse=True):
        for k, shape in enumerate(shapes):
            if shape.sum() == area:
                expected[shape] = k
    found = painted(masks_of(shapes, height, width, table=table))
    assert found.dtype == np.int32
    assert np.array_equal(found, expected)


@given(SIDES, SIDES, st.integers(1, 30))
def test_squares(height: int, width: int, side: int) -> None:
    found = squares(height, width, side)
    assert found.dtype == np.int32
    number, expected = 0, np.full((height, width), -1)
    for top in range(0, height, side):
        for left in range(0, width, side):
            expected[top : top + side, left : left + side] = number
            number += 1
    assert np.array_equal(found, expected)


@given(SEEDS, SIDES, SIDES, st.integers(-1, 5), st.integers(1, 6), st.integers(-1, 3))
def test_every_region_takes_its_most_frequent_class(seed: int, height: int, width: int, most: int, classes: int, lowest: int) -> None:
    random = np.random.default_rng(seed)
    regions = random.integers(-1, most + 1, (height, width)).astype(np.int32)
    labels = random.integers(lowest, lowest + classes, (height, width)).astype(np.int32)
    before, expected = labels.copy(), labels.copy()
    for region in set(regions.ravel().tolist()) - {-1}:
        values, counts = np.unique(labels[regions == region], return_counts=True)
        expected[regions == region] = values[np.argmax(counts)]
    found = corrected(labels, regions)
    assert found.dtype == np.int32
    assert np.array_equal(found, expected)
    assert np.array_equal(labels, before)
    assert np.array_equal(corrected(found, regions), found)


@given(SEEDS, SIDES, SIDES, st.integers(1, 9), st.integers(1, 9), st.integers(-1, 4))
def test_a_patch_is_in_the_region_of_most_of_its_pixels(seed: int, height: int, width: int, rows: int, columns: int, most: int) -> None:
    rows, columns = min(rows, height), min(columns, width)
    regions = np.random.default_rng(seed).integers(-1, most + 1, (height, width)).astype(np.int32)
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    found = patch_regions(regions, rows, columns)
    assert found.shape == (rows, columns)
    for i in range(rows):
        for j in range(columns):
            inside = regions[np.ix_(row == i, column == j)].ravel().tolist()
            best = max(inside.count(each) for each in inside)
            winners = sorted(each for each in set(inside) if inside.count(each) == best)
            assert found[i, j] == ([each for each in winners if each >= 0] or winners)[0]


def test_more_patches_than_pixels_take_the_nearest_pixel() -> None:
    assert np.array_equal(patch_regions(np.array([[3, -1]], np.int32), 2, 4), [[3, 3, -1, -1]] * 2)


@given(SEEDS, SIDES, SIDES, SIDES, SIDES)
def test_labels_at_another_grid_are_the_nearest(seed: int, height: int, width: int, rows: int, columns: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, 9, (2, height, width)).astype(np.int32)
    found = at_grid(labels, (rows, columns))
    assert all(
        np.array_equal(found[:, i, j], labels[:, i * height // rows, j * width // columns]) for i in range(rows) for j in range(columns)
    )
