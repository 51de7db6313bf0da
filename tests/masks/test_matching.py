"""One-to-one pairs by IoU."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks.matching import match_masks
from ovskit.core.masks.pairs import pairs_of


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.integers(0, 7), st.sampled_from([0.25, 0.5]))
def test_pairs_are_taken_best_first(seed: int, n: int, m: int, at: float) -> None:
    iou = np.random.default_rng(seed).integers(0, 9, (n, m)) / 8  # ties on purpose
    free_rows, free_cols, expected = set(range(n)), set(range(m)), np.full(n, -1)
    while True:
        open_pairs = [(-iou[i, j], i, j) for i in free_rows for j in free_cols if iou[i, j] >= at]
        if not open_pairs:
            break
        _, i, j = min(open_pairs)
        expected[i] = j
        free_rows.remove(i)
        free_cols.remove(j)
    np.testing.assert_array_equal(match_masks(pairs_of(iou, at)), expected)
