"""Resizing to a model's input, against Pillow and across threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovskit.core.models.backbones.interface import Interpolation
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.runtime.errors import UsageError

SIDE = st.integers(1, 40)


@settings(deadline=None, max_examples=40)
@given(size=st.tuples(SIDE, SIDE), to=st.tuples(SIDE, SIDE), interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]))
def test_is_pillows(size: tuple[int, int], to: tuple[int, int], interpolation: Interpolation) -> None:
    image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = resize_rgb(image, *to, interpolation)
    expected = np.asarray(Image.fromarray(image).resize(to[::-1], Image.Resampling[interpolation.upper()]))
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    assert np.array_equal(result.permute(1, 2, 0).numpy(), expected)


def test_an_image_of_the_right_size_is_copied_and_not_shared() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    result = resize_rgb(image, 8, 6, "bicubic")
    before = result.clone()
    image[:] = 0
    assert torch.equal(result, before)


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::2], np.s_[:, :, ::-1]])
def test_views_of_an_array(view: object) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)[view]  # type: ignore[index]
    assert torch.equal(resize_rgb(image, 4, 4, "bilinear"), resize_rgb(image.copy(), 4, 4, "bilinear"))


@pytest.mark.parametrize("image", [np.zeros((8, 6, 3), np.float32), np.zeros((8, 6), np.uint8), np.zeros((8, 6, 4), np.uint8)])
def test_what_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    for size in ((8, 6), (4, 4)):
        with pytest.raises(UsageError, match=r"images are RGB, \(H, W, 3\) of uint8, 0 to 255; this one is 8×6"):
            resize_rgb(image, *size, "bilinear")


def test_threads_do_not_disturb_each_other() -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8) for seed in range(16)]
    alone = [resize_rgb(image, 64, 48, "bicubic") for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: resize_rgb(image, 64, 48, "bicubic"), images))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
