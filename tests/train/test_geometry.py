"""Views: masks from runs are where a slow reference finds them, the image is where its masks are, and views lead into each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks.rle import encode
from ovskit.core.masks.runs import run_table
from ovskit.core.records import RunTable
from ovskit.core.train.views import geometry
from ovskit.core.train.views.geometry import PADDING, View, carry, jittered_view, sees, visible_areas, warp_image, warp_masks, whole_view
from tests.reference import geometry as slow

_few = settings(max_examples=60, deadline=None)


@st.composite
def views(draw: st.DrawFn, height: int | None = None, width: int | None = None) -> View:
    height, width = height or draw(st.integers(1, 24)), width or draw(st.integers(1, 24))
    scaled = [draw(st.integers(1, 40)) for _ in range(2)]
    corner = [draw(st.integers(-20, 20)) for _ in range(2)]
    return View(height, width, *scaled, *corner, draw(st.integers(1, 24)), draw(st.booleans()))


def blobs(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """Random masks, from noise to nothing and everything: (n, h, w) uint8."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0], count)[:, None, None]
    coarse = rng.random((count, -(-height // 3), -(-width // 3))).repeat(3, 1).repeat(3, 2)[:, :height, :width]
    return ((rng.random((count, height, width)) if seed % 2 else coarse) < share).astype(np.uint8)


def table_of(masks: np.ndarray) -> RunTable:
    return run_table([encode(mask) for mask in masks])


@_few
@given(views(), st.integers(1, 24), st.integers(0, 5), st.integers(0, 1000))
def test_masks_are_the_nearest_pixels(view: View, places: int, count: int, seed: int) -> None:
    masks = blobs(seed, count, view.height, view.width)
    table = table_of(masks)
    wanted = slow.warp(masks, view, places)
    np.testing.assert_array_equal(warp_masks(table, view, places), wanted)
    which = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.5)
    union = geometry.warp_union(table, which, view, places)
    np.testing.assert_array_equal(union, wanted[which].any(0) if len(which) else np.zeros((places, places)))
    np.testing.assert_array_equal(visible_areas(table, view), slow.visible(masks, view))
    np.testing.assert_array_equal(geometry.count_points(wanted), wanted.sum((1, 2)))


@_few
@given(views(), st.integers(1, 24), st.integers(0, 1000))
def test_mirrored_twice_is_as_it_was(view: View, places: int, seed: int) -> None:
    masks = table_of(blobs(seed, 3, view.height, view.width))
    image = np.random.default_rng(seed).integers(0, 256, (view.height, view.width, 3), np.uint8)
    assert view.flipped() != view == view.flipped().flipped()
    np.testing.assert_array_equal(warp_masks(masks, view.flipped(), places), warp_masks(masks, view, places)[..., ::-1])
    np.testing.assert_array_equal(warp_image(image, view.flipped()), warp_image(image, view)[:, ::-1])


@_few
@given(st.data(), st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_carried_masks_are_where_the_other_view_has_them(data: st.DataObject, height: int, width: int, seed: int) -> None:
    """A view with a point for every pixel of a resized photograph loses nothing but what is outside of it."""
    side = max(height, width)
    seen = View(height, width, height, width, data.draw(st.integers(-3, 3)), data.draw(st.integers(-3, 3)), side, data.draw(st.booleans()))
    wanted = data.draw(views(height, width))
    places = data.draw(st.integers(1, 16))
    masks = table_of(blobs(seed, 3, height, width))
    carried = carry(torch.from_numpy(warp_masks(masks, seen, side)), seen, wanted, places)
    assert carried.dtype == torch.uint8
    both = sees(seen, wanted, places)
    direct = warp_masks(masks, wanted, places)
    np.testing.assert_array_equal(carried.numpy(), direct * both)
    inside = slow.warp(np.ones((1, height, width), np.uint8), wanted, places)[0].astype(bool)
    assert not (both & ~inside).any()
    if seen.top == seen.left == 0:
        np.testing.assert_array_equal(both, inside)


def test_coarse_masks_are_carried_to_the_nearest_point() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 96, 128), np.uint8)
    mask[0, 24:72, 32:80] = 1
    seen, wanted = whole_view(96, 128, 64).flipped(), View(96, 128, 120, 160, 20, 40, 64)
    coarse = torch.from_numpy(warp_masks(table_of(mask), seen, 16).astype(np.float32)) * 0.75
    carried = carry(coarse, seen, wanted, 16)
    assert set(carried.unique().tolist()) == {0.0, 0.75}
    assert ((carried[0].numpy() > 0) == warp_masks(table_of(mask), wanted, 16)[0].astype(bool)).mean() > 0.9
    assert carry(coarse[:0], seen, wanted, 16).shape == (0, 16, 16)
    with pytest.raises(ValueError, match="one photograph"):
        carry(coarse, seen, jittered_view(95, 128, 64, rng), 16)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (64, 64), (300, 200)])
def test_the_image_is_where_its_masks_are(shape: tuple[int, int]) -> None:
    height, width = shape
    rng = np.random.default_rng(1)
    tiles = (np.arange(height)[:, None] * 4 // height) * 4 + np.arange(width)[None] * 4 // width
    image = np.stack([tiles * 10 + 40, 255 - tiles * 10, np.full_like(tiles, 90)], -1).astype(np.uint8)
    masks = table_of(np.stack([tiles == k for k in range(16)]).astype(np.uint8))
    for n in range(30):
        view = jittered_view(height, width, 64, rng) if n else whole_view(height, width, 64)
        pixels, seen = warp_image(image, view), warp_masks(masks, view, 64)
        assert seen.sum(0).max() <= 1
        beyond = seen.sum(0) == 0
        assert (pixels[beyond] == PADDING).all()
        labels = np.where(beyond, -1, seen.argmax(0))
        plain = labels[1:-1, 1:-1] >= 0  # points that are of one tile with all around them, so that nothing is blended
        for dy in range(3):
            for dx in range(3):
                plain &= labels[dy : 62 + dy, dx : 62 + dx] == labels[1:-1, 1:-1]
        inner = labels[1:-1, 1:-1][plain]
        found = pixels[1:-1, 1:-1][plain].astype(int)
        if view.scaled_height >= 40:
            assert plain.any()
        np.testing.assert_allclose(found[:, 0], inner * 10 + 40, atol=1)
        np.testing.assert_allclose(found[:, 1], 255 - inner * 10, atol=1)


def test_pixels_are_at_their_exact_place() -> None:
    """On a ramp of four levels a pixel, a quarter of a pixel is a level."""
    ramp = np.broadcast_to((np.arange(60) * 4).astype(np.uint8)[None, :, None], (48, 60, 3))
    for view in (View(48, 60, 96, 120, 7, 11, 64), View(48, 60, 90, 131, -5, 30, 64, True), View(48, 60, 24, 30, 0, 0, 24)):
        pixels = warp_image(ramp, view)[10:16, :, 0]
        middles = (np.arange(view.side) + 0.5 + view.left) * 60 / view.scaled_width - 0.5
        wanted = middles[::-1] if view.mirrored else middles
        inner = (wanted > 1) & (wanted < 58)
        assert inner.any()
        np.testing.assert_allclose(pixels[:, inner], np.broadcast_to(wanted[inner] * 4, (6, inner.sum())), atol=1)
        turned = View(view.width, view.height, view.scaled_width, view.scaled_height, view.left, view.top, view.side)
        found = warp_image(np.ascontiguousarray(ramp.transpose(1, 0, 2)), turned)[:, 10:16, 0]
        np.testing.assert_allclose(found, (pixels[:, ::-1] if view.mirrored else pixels).T, atol=1)


def test_large_scale_jitter_is_uniform_in_scale_and_keeps_the_aspect() -> None:
    rng = np.random.default_rng(0)
    found = [jittered_view(300, 600, 512, rng) for _ in range(400)]
    scale = np.array([view.scaled_width for view in found]) / 512
    assert scale.min() == pytest.approx(0.1, abs=0.02)
    assert scale.max() == pytest.approx(2.0, abs=0.02)
    assert scale.mean() == pytest.approx(1.05, abs=0.06)
    assert 0.4 < np.mean([view.mirrored for view in found]) < 0.6
    for view in found:
        assert abs(view.scaled_height - view.scaled_width / 2) <= 1
        for offset, scaled in ((view.top, view.scaled_height), (view.left, view.scaled_width)):
            assert min(0, scaled - 512) <= offset <= max(0, scaled - 512)
    lefts = np.array([view.left / (view.scaled_width - 512) for view in found if abs(view.scaled_width - 512) > 50])
    assert (lefts.min() < 0.05, lefts.max() > 0.95) == (True, True)
    assert jittered_view(1, 4000, 512, rng).scaled_height == 1


def test_a_view_beside_the_photograph_shows_nothing() -> None:
    view = View(20, 20, 20, 20, 25, 0, 16)
    assert (warp_image(np.zeros((20, 20, 3), np.uint8), view) == PADDING).all()
    assert not warp_masks(table_of(np.ones((2, 20, 20), np.uint8)), view, 4).any()
    assert visible_areas(table_of(np.ones((2, 20, 20), np.uint8)), view).tolist() == [0, 0]
    assert warp_masks(run_table([]), whole_view(20, 20, 16), 4).shape == (0, 4, 4)
