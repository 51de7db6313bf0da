"""The overlay against a slow one made of dense masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.colours import colours
from ovskit.core.show.overlay import overlay

from .conftest import build_masks


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9))), st.floats(0, 1))
def test_pixels_take_the_colour_of_the_smallest_mask_on_them(dense: np.ndarray, opacity: float) -> None:
    height, width = dense.shape[1:]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    masks = build_masks(list(dense), size=(height, width))
    result = overlay(image, masks, opacity=opacity, outlines=False)
    order = sorted(range(len(dense)), key=lambda k: -int(dense[k].sum()))
    expected = image.astype(np.float64)
    for rank, k in enumerate(order):
        expected[dense[k]] = image[dense[k]] * (1 - opacity) + colours(len(dense))[rank] * opacity
    assert result.dtype == np.uint8
    assert np.abs(result - expected).max(initial=0) <= 0.51


def test_outlines_lie_along_borders_only_and_can_be_seen_on_white() -> None:
    dense = np.zeros((40, 40), bool)
    dense[10:30, 10:30] = True
    masks = build_masks([dense], size=(40, 40))
    for shade in (0, 255):
        image = np.full((40, 40, 3), shade, np.uint8)
        plain, lined = overlay(image, masks, outlines=False), overlay(image, masks)
        changed = (plain != lined).any(axis=-1)
        near = np.zeros((40, 40), bool)
        near[8:32, 8:32] = True
        near[12:28, 12:28] = False
        assert changed.any()
        assert not (changed & ~near).any()
        # Along any row through the mask, both borders show contrast.
        row = lined[20].astype(int).sum(axis=-1)
        assert np.ptp(row[8:13]) > 150
        assert np.ptp(row[27:33]) > 150


def test_neither_the_image_nor_images_without_masks_change(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, image = three_masks
    before = image.copy()
    assert not np.array_equal(overlay(image, masks), image)
    assert np.array_equal(image, before)
    assert np.array_equal(overlay(image, MaskSet(masks.image, ())), image)
    assert np.array_equal(overlay(image, masks, opacity=0, outlines=False), image)


def test_a_mask_has_the_same_colour_whatever_the_order(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, image = three_masks
    turned = MaskSet(masks.image, masks.masks[::-1])
    assert np.array_equal(overlay(image, masks), overlay(image, turned))


@pytest.mark.parametrize("shape", [(20, 29, 3), (30, 20, 3), (20, 30), (20, 30, 4)])
def test_a_picture_of_another_shape_is_refused(three_masks: tuple[MaskSet, np.ndarray], shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"a\.jpg"):
        overlay(np.zeros(shape, np.uint8), three_masks[0])


def test_other_pixels_and_opacities_are_refused(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, image = three_masks
    with pytest.raises(InputError, match="float64"):
        overlay(image.astype(float), masks)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="opacity"):
        overlay(image, masks, opacity=1.5)
