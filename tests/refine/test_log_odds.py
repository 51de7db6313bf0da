"""What a CRF is told before it looks, pixel by pixel."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ovskit.core.formats.streams.soft_margin import SoftMargin
from ovskit.core.masks import rle
from ovskit.core.records import Mask
from ovskit.core.refine.log_odds import log_odds

MARGIN = np.random.default_rng(2).normal(0, 0.2, (6, 8)).astype(np.float32)
SIZE = (48, 72)
BOX = (5, 3, 40, 60)
CERTAIN = math.log(0.99 / 0.01)


def soft_mask() -> tuple[Mask, np.ndarray, np.ndarray]:
    """A mask that is cut from the margin, but for a corner that something else gave it; the mask, and the margin in pixels."""
    margin = np.asarray(cv2.resize(MARGIN, SIZE[::-1], interpolation=cv2.INTER_LINEAR))
    dense = (margin > 0).astype(np.uint8)
    dense[:12, :12] = 1 - dense[:12, :12]
    coded = rle.encode(dense)
    kept = SoftMargin((6, 8), (0, 0), MARGIN).to_json()
    return Mask(4, 1, coded, rle.area(coded), rle.bbox(coded), extra={"soft": kept}), dense, margin


def test_as_sure_as_the_margin_is_wide_on_the_masks_own_side() -> None:
    mask, dense, margin = soft_mask()
    crop = np.s_[BOX[0] : BOX[2], BOX[1] : BOX[3]]
    found = log_odds(mask, np.ascontiguousarray(dense[crop]), BOX, 0.99, 3.0, 0)
    assert found.dtype == np.float32
    mean = np.abs(MARGIN).mean()
    expected = [
        (1 if inside else -1) * min(CERTAIN, 3 * abs(value) / mean)
        for inside, value in zip(dense[crop].ravel(), margin[crop].ravel(), strict=True)
    ]
    half_a_step = np.abs(MARGIN).max() / 127 / 2
    np.testing.assert_allclose(found.ravel(), expected, atol=1.05 * half_a_step * 3 / mean)
    assert (np.abs(found) < 0.2).any()
    assert (np.abs(found) == np.float32(CERTAIN)).any()


def test_equally_sure_without_a_margin() -> None:
    mask, dense, _ = soft_mask()
    box = (0, 0, *SIZE)
    expected = np.where(dense, CERTAIN, -CERTAIN).astype(np.float32)
    assert np.array_equal(log_odds(mask, dense, box, 0.99, math.inf, 0), expected)
    bare = Mask(4, 1, mask.rle, mask.area, mask.bbox)
    assert np.array_equal(log_odds(bare, dense, box, 0.99, 3.0, 0), expected)
    flat = Mask(4, 1, mask.rle, mask.area, mask.bbox, extra={"soft": SoftMargin((6, 8), (0, 0), 0 * MARGIN).to_json()})
    assert log_odds(flat, dense, box, 0.99, 3.0, 0) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1e30])
def test_only_how_wide_a_margin_is_beside_its_mean_counts(scale: float) -> None:
    mask, dense, _ = soft_mask()
    box = (0, 0, *SIZE)
    expected = log_odds(mask, dense, box, 0.99, 3.0, 0)
    kept = dict(mask.extra["soft"])
    kept["step"] *= scale
    found = log_odds(replace(mask, extra={"soft": kept}), dense, box, 0.99, 3.0, 0)
    assert np.isfinite(found).all()
    # The least numbers that float32 has are far apart: there it is enough that sides and the order of sizes stay.
    np.testing.assert_allclose(found, expected, **({"rtol": 0.5, "atol": 0.5} if scale < 1e-37 else {"rtol": 1e-5, "atol": 1e-4}))


def test_a_mask_of_whole_cells_is_unsure_at_its_edge() -> None:
    cells = np.zeros((6, 8), bool)
    cells[1:4, 2:6] = np.random.default_rng(3).random((3, 4)) < 0.7
    dense = np.kron(cells, np.ones((8, 9), np.uint8))
    coded = rle.encode(dense)
    mask = Mask(4, 1, coded, rle.area(coded), rle.bbox(coded), extra={"soft": {"grid": [6, 8]}})
    share = np.asarray(cv2.resize(np.where(cells, 1, -1).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_LINEAR))
    crop = np.s_[BOX[0] : BOX[2], BOX[1] : BOX[3]]
    with np.errstate(divide="ignore"):
        expected = np.clip(np.log((1 + share) / (1 - share)), -CERTAIN, CERTAIN)
    found = log_odds(mask, np.ascontiguousarray(dense[crop]), BOX, 0.99, 3.0, 0)
    np.testing.assert_allclose(found, expected[crop], atol=1e-4)
    assert (np.abs(found) < 0.5).any()
    assert (np.abs(found) == np.float32(CERTAIN)).any()


def test_a_mask_that_cuts_cells_of_its_grid_is_sure_of_its_edge() -> None:
    dense = np.zeros(SIZE, np.uint8)
    dense[8:24, 18:46] = 1  # a column more than whole cells of 8 × 9 pixels
    coded = rle.encode(dense)
    mask = Mask(4, 1, coded, rle.area(coded), rle.bbox(coded), extra={"soft": {"grid": [6, 8]}})
    found = log_odds(mask, dense, (0, 0, *SIZE), 0.99, 3.0, 0)
    assert np.array_equal(found, np.where(dense, CERTAIN, -CERTAIN).astype(np.float32))


def test_a_small_mask_is_sure_of_itself() -> None:
    mask, dense, _ = soft_mask()
    box = (0, 0, *SIZE)
    hard, soft = log_odds(mask, dense, box, 0.99, math.inf, 0), log_odds(mask, dense, box, 0.99, 3.0, 0)
    assert np.array_equal(log_odds(mask, dense, box, 0.99, 3.0, mask.area), soft)
    assert np.array_equal(log_odds(mask, dense, box, 0.99, 3.0, mask.area + 1), hard)
    assert not np.array_equal(hard, soft)
