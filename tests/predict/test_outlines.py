"""Masks in native pixels are those of interpolated logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.predict.outlines import outline


@settings(deadline=None)  # the first example compiles
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 60)] * 2))
def test_it_is_torchs_interpolation(seed: int, grid: tuple[int, int], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=grid) - rng.choice([-1, 0, 1, 2])).astype(np.float32)
    found = rle.decode(outline(logits, *size))
    smooth = F.interpolate(torch.from_numpy(logits)[None, None].double(), size, mode="bilinear", align_corners=False)[0, 0].numpy()
    sure = np.abs(smooth) > 1e-5
    np.testing.assert_array_equal(found[sure], (smooth > 0)[sure])


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_nothing_above_zero_is_an_empty_mask(value: float) -> None:
    found = outline(np.full((4, 5), value, np.float32), 33, 47)
    assert (found.height, found.width) == (33, 47)
    assert rle.area(found) == 0
