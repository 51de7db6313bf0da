"""Specks and holes against scikit-image's labels on dense masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from ovskit.core.masks import rle
from ovskit.core.masks.components import clean_components
from ovskit.core.masks.runs import run_table


def by_labels(mask: np.ndarray, smallest: float, holes: bool) -> np.ndarray:
    """The definition: label what is left out, fill what is small and inside; label the mask, drop what is small."""
    out = mask.astype(bool)
    if holes:
        gaps = label(~out, connectivity=1)
        at_border = {*gaps[0], *gaps[-1], *gaps[:, 0], *gaps[:, -1]}
        for k in range(1, gaps.max() + 1):
            if k not in at_border and (gaps == k).sum() < smallest:
                out = out | (gaps == k)
    parts = label(out, connectivity=2)
    for k in range(1, parts.max() + 1):
        if (parts == k).sum() < smallest:
            out = out & (parts != k)
    return out


def cleaned(mask: np.ndarray, smallest: float, holes: bool = True) -> np.ndarray:
    return rle.decode(clean_components(run_table([rle.encode(mask)]), 0, smallest, holes=holes))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95),
    st.one_of(st.integers(0, 40), st.floats(0, 20)), st.booleans(),
)  # fmt: skip
def test_small_components_by_definition(h: int, w: int, seed: int, share: float, smallest: float, holes: bool) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((h, w)) < share
    assert np.array_equal(cleaned(mask, smallest, holes), by_labels(mask, smallest, holes))


@pytest.mark.parametrize(("h", "w"), [(60, 80), (1, 50), (50, 1)])
def test_shapes_with_many_columns(h: int, w: int) -> None:
    y, x = np.mgrid[:h, :w]
    rings = ((np.hypot(y - h / 2, x - w / 2) // 4) % 2 == 0) ^ ((y // 7 + x // 5) % 4 == 0)
    for smallest in (1, 5, 20, 100, 10**6):
        assert np.array_equal(cleaned(rings, smallest), by_labels(rings, smallest, True))


def test_what_stays_is_told_by_the_smallest_size() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False  # a hole of 4
    mask[8, 8] = True  # hangs on by its corner
    mask[10, 1:4] = True  # a speck of 3
    assert cleaned(mask, 3).sum() == mask.sum()
    assert cleaned(mask, 4).sum() == mask.sum() - 3
    assert cleaned(mask, 5).sum() == mask.sum() - 3 + 4
    assert cleaned(mask, 5, holes=False).sum() == mask.sum() - 3
    assert cleaned(mask, 51).sum() == 0


def test_a_bay_at_the_border_is_no_hole() -> None:
    mask = np.ones((6, 6), bool)
    mask[0, 2:4] = mask[2:4, 5] = False
    expected = mask.copy()
    mask[3, 2] = False
    assert np.array_equal(cleaned(mask, 30), expected)


def test_empty_and_full_masks_stay() -> None:
    for value in (0, 1):
        mask = np.full((5, 7), value, bool)
        assert np.array_equal(cleaned(mask, 3), mask)
