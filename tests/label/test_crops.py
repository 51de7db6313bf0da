"""What stands for a mask, against slow ways to say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.label.crops import CropOptions, crop_box, crop_mask, crop_options
from ovskit.core.masks.runs import run_table
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.records import Image

from .conftest import Clip, Corners, mask_of


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
    st.sampled_from([0.0, 0.1, 0.25, 1.0, 10.0]),
)  # fmt: skip
def test_a_box_holds_its_mask_and_stays_in_the_image(h: int, w: int, a: float, b: float, c: float, d: float, context: float) -> None:
    y, x = int(a * (h - 1)), int(b * (w - 1))
    bh, bw = 1 + int(c * (h - 1 - y)), 1 + int(d * (w - 1 - x))
    top, left, bottom, right = crop_box((float(x), float(y), float(bw), float(bh)), h, w, context)
    assert 0 <= top <= y < y + bh <= bottom <= h
    assert 0 <= left <= x < x + bw <= right <= w
    # Every pixel that is no farther from the box than the margin, and no other.
    rows = [k for k in range(h) if y - round(context * bh) <= k < y + bh + round(context * bh)]
    columns = [k for k in range(w) if x - round(context * bw) <= k < x + bw + round(context * bw)]
    assert (top, bottom) == (rows[0], rows[-1] + 1)
    assert (left, right) == (columns[0], columns[-1] + 1)


def test_ten_percent_on_each_side() -> None:
    assert crop_box((50.0, 20.0, 30.0, 10.0), 200, 200, 0.1) == (19, 47, 31, 83)


def test_a_box_of_nothing_is_still_a_pixel() -> None:
    assert crop_box((0.0, 0.0, 0.0, 0.0), 5, 5, 0.1) == (0, 0, 1, 1)
    assert crop_box((5.0, 5.0, 0.0, 0.0), 5, 5, 0.1) == (4, 4, 5, 5)


@pytest.mark.parametrize("masked", [False, True])
def test_pixels(masked: bool) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    inside = np.zeros((20, 30), bool)
    inside[4:14, 10:20] = random.random((10, 10)) < 0.5
    inside[4, 10] = inside[13, 19] = True
    mask = mask_of(1, Image(1, "a.png", 30, 20), inside)
    before = pixels.copy()
    crop = crop_mask(pixels, mask, run_table([mask.rle]), 0, CropOptions(8, 0.2, masked, (1, 2, 3)))
    assert crop.shape == (14, 14, 3)
    for y in range(14):
        for x in range(14):
            expected = pixels[y + 2, x + 8] if inside[y + 2, x + 8] or not masked else (1, 2, 3)
            assert tuple(crop[y, x]) == tuple(expected)
    assert (pixels == before).all()


def spec(model: str, stride: int, mean: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> BackboneSpec:
    return BackboneSpec("x", model, "key", -1, stride, 8, True, mean, (1.0, 1.0, 1.0), "bilinear")


def test_a_models_own_size_and_colour(clip_checkpoint: Clip) -> None:
    assert crop_options(spec("builtin-v1", 8)) == CropOptions(128, 0.1, False, (124, 116, 104))
    assert crop_options(spec("timm:vit_small_patch14_dinov2.lvd142m", 14, (0.5, 0.25, 1.0))) == CropOptions(224, 0.1, False, (128, 64, 255))
    assert crop_options(spec("clip:ViT-L-14-336/openai", 14)).size == 336
    assert crop_options(spec("clip:ovskit-words", 16)).size == 32
    assert crop_options(Corners.spec, size=30).size == 32  # rounded to the patch
    assert crop_options(Corners.spec, size=1).size == 4


def test_what_does_not_matter_is_not_written_down(tmp_path: Path) -> None:
    assert CropOptions(8, fill=(1, 2, 3)).to_json() == CropOptions(8).to_json()
    assert CropOptions(8, masked=True, fill=(1, 2, 3)).to_json() == {"size": 8, "context": 0.1, "masked": True, "fill": [1, 2, 3]}
