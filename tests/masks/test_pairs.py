"""Pairs that overlap enough against the whole matrix, bit for bit, and what they cost."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.masks.boxes import encode_box
from ovskit.core.masks.overlap import iou
from ovskit.core.masks.pairs import overlaps, pairs_of
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Rle, RunTable
from ovskit.core.runtime.errors import InputError


def table(random: np.random.Generator, count: int, side: int = 9) -> RunTable:
    masks = random.random((count, side, side)) < random.random((count, 1, 1))
    masks[random.random(count) < 0.2] = 0
    return run_table([rle.encode(one) for one in masks])


def square(top: int, left: int, side: int, height: int, width: int) -> Rle:
    return encode_box(np.ones((side, side), np.uint8), (top, left, top + side, left + side), height, width)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 30), st.sampled_from([1e-300, 0.25, 0.5, 1.0]), st.booleans())
def test_they_are_those_of_the_matrix(seed: int, n: int, m: int, least: float, crowds: bool) -> None:
    random = np.random.default_rng(seed)
    a, b = table(random, n), table(random, m)
    crowd = random.integers(0, 2, m) if crowds else None
    dense = iou(a, b, crowd)
    found, wanted = overlaps(a, b, least, crowd), pairs_of(dense, least)
    for one, other in zip(
        (found.pairs.offsets, found.pairs.column, found.pairs.iou), (wanted.offsets, wanted.column, wanted.iou), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.highest, dense.max(axis=1, initial=0))
    if m:
        np.testing.assert_array_equal(found.nearest, np.where(dense.max(axis=1) > 0, dense.argmax(axis=1), -1))
    some = np.flatnonzero(random.random(m) < 0.5)
    part, wanted = found.pairs.of_columns(some), pairs_of(dense[:, some], least)
    assert part.columns == len(some)
    for one, other in zip(
        (part.offsets, part.column, part.iou, part.row), (wanted.offsets, wanted.column, wanted.iou, wanted.row), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_memory_goes_with_the_pairs_and_not_with_the_matrix() -> None:
    """3,000 small boxes against as many, of which each overlaps a few: the matrix alone would have 72 MB, at eight bytes."""
    random = np.random.default_rng(0)
    places = random.integers(0, 990, (3000, 2))
    masks = run_table([square(y, x, 8, 1000, 1000) for y, x in places.tolist()])
    overlaps(masks, masks, 0.5)
    tracemalloc.start()
    try:
        found = overlaps(masks, masks, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.pairs.iou) >= 3000
    assert peak < 3 << 20


def test_what_is_refused() -> None:
    one, other = run_table([square(0, 0, 4, 8, 8)]), run_table([square(0, 0, 4, 8, 9)])
    with pytest.raises(InputError, match="must have one size"):
        overlaps(one, other, 0.5)
    with pytest.raises(InputError, match="one entry for each"):
        overlaps(one, one, 0.5, [0, 0])
