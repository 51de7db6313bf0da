"""Superpixels against a slow reference and scikit-image, ``snap`` against its definition, and what is always true of it."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import segmentation

from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.models.superpixels import UNIT, Superpixels, edge_weights, smooth, superpixels
from ovskit.core.records import Mask, Rle
from ovskit.core.refine.methods.snap import SnapOptions
from ovskit.core.refine.snap import snap_masks, snap_refiner
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import snap as slow

SCALES = (10.0, 60.0, 300.0)
DEFAULT = SnapOptions()


def scene(seed: int, height: int, width: int, noise: float = 6) -> np.ndarray:
    """Flat discs on a plain ground, with noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), random.integers(0, 256, 3), np.float64)
    for _ in range(5):
        cy, cx, r = random.uniform(0, height), random.uniform(0, width), random.uniform(2, 2 + max(height, width) / 3)
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = random.integers(0, 256, 3)
    return np.clip(pixels + random.normal(0, noise, pixels.shape), 0, 255).astype(np.uint8)


def blocks(seed: int, height: int, width: int, step: int) -> np.ndarray:
    """A mask of patches, as ovs-cluster makes them."""
    random = np.random.default_rng(seed)
    coarse = random.random((height // step + 1, width // step + 1)) < random.uniform(0.1, 0.9)
    return coarse.repeat(step, 0).repeat(step, 1)[:height, :width]


def as_masks(dense: list[np.ndarray]) -> list[Mask]:
    rles = [rle.encode(np.ascontiguousarray(mask)) for mask in dense]
    return [Mask(k, 1, one, rle.area(one), rle.bbox(one)) for k, one in enumerate(rles, 1)]


def full_labels(found: Superpixels) -> list[np.ndarray]:
    """Every map as (height, width)."""
    return [labels[np.ix_(found.cols, found.rows)].T for labels in found.labels]


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()], 1), axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


def refined(pixels: np.ndarray, dense: list[np.ndarray], options: SnapOptions = DEFAULT) -> list[np.ndarray]:
    return [rle.decode(one).astype(bool) for one in snap_refiner(options).refine(pixels, as_masks(dense))]


# Superpixels


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(0, 2**32 - 1), st.floats(0, 60), st.floats(0, 900), st.integers(1, 20))
def test_superpixels_by_definition(height: int, width: int, seed: int, noise: float, scale: float, smallest: int) -> None:
    pixels = scene(seed, height, width, noise)
    found = superpixels(pixels, (scale,), smallest, 10**6)
    (labels,) = full_labels(found)
    assert same_partition(labels, slow.felzenszwalb(pixels, scale, smallest))
    assert np.array_equal(np.bincount(labels.ravel()), found.sizes[0])


@pytest.mark.parametrize("scale", [20, 100, 400])
@pytest.mark.parametrize("seed", range(4))
def test_superpixels_are_those_of_scikit_image(scale: float, seed: int) -> None:
    """On images whose edges all weigh differently: for equal ones its order is arbitrary."""
    random = np.random.default_rng(seed)
    while True:
        pixels = random.integers(0, 256, (9, 8, 3), dtype=np.uint8)
        weights = edge_weights(smooth(pixels))
        weights = weights[weights != 65535]
        if len(np.unique(weights)) == len(weights):
            break
    colours = smooth(pixels).transpose(1, 0, 2) / (255.0 * UNIT)
    for smallest in (1, 6):
        expected = segmentation.felzenszwalb(colours, scale=scale, sigma=0, min_size=smallest)
        assert same_partition(full_labels(superpixels(pixels, (scale,), smallest, 10**6))[0], expected)


def test_each_scale_is_by_itself_and_none_is_below_the_smallest() -> None:
    pixels = scene(3, 70, 90)
    together = superpixels(pixels, SCALES, 15, 10**6)
    for k, scale in enumerate(SCALES):
        alone = superpixels(pixels, (scale,), 15, 10**6)
        assert np.array_equal(together.labels[k], alone.labels[0])
        sizes = together.sizes[k][together.sizes[k] > 0]
        assert sizes.min() >= 15
        assert sizes.sum() == 70 * 90


def test_large_images_are_cut_at_a_smaller_size() -> None:
    small = scene(5, 60, 80, 0)
    large = small.repeat(4, 0).repeat(4, 1)
    whole, cut = superpixels(small, SCALES, 20, 10**6), superpixels(large, SCALES, 20, 60 * 80)
    assert np.array_equal(cut.labels, whole.labels)
    assert np.array_equal(cut.sizes, 16 * whole.sizes)
    for a, b in zip(full_labels(cut), full_labels(whole), strict=True):
        assert np.array_equal(a, b.repeat(4, 0).repeat(4, 1))


def test_sizes_count_pixels_where_shrinking_is_uneven() -> None:
    found = superpixels(scene(8, 47, 61), (50.0,), 5, 500)
    assert found.labels[0].size <= 520
    assert np.array_equal(np.bincount(full_labels(found)[0].ravel(), minlength=found.sizes.shape[1]), found.sizes[0])


# Masks


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 26), st.integers(1, 26), st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 0.3),
    st.sampled_from([0.2, 0.4, 0.5, 0.7]), st.sampled_from([60, 10**6]),
)  # fmt: skip
def test_masks_by_definition(height: int, width: int, seed: int, step: int, band: float, threshold: float, most: int) -> None:
    pixels = scene(seed, height, width)
    dense = [blocks(seed + k, height, width, step) for k in range(3)]
    options = SnapOptions(scales=SCALES, smallest=4, band=band, threshold=threshold, most_pixels=most)
    maps = full_labels(superpixels(pixels, SCALES, 4, most))
    reach = max(1, round(band * height)), max(1, round(band * width))
    for before, after in zip(dense, refined(pixels, dense, options), strict=True):
        assert np.array_equal(after, slow.snap(before, maps, reach, threshold))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_a_union_of_superpixels_stays(threshold: float) -> None:
    pixels = scene(1, 80, 100)
    (labels,) = full_labels(superpixels(pixels, (50.0,), 20, 10**6))
    dense = [np.isin(labels, np.flatnonzero(np.random.default_rng(k).random(labels.max() + 1) < 0.5)) for k in range(4)]
    for before, after in zip(dense, refined(pixels, dense, SnapOptions(scales=(50.0,), threshold=threshold)), strict=True):
        assert np.array_equal(before, after)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.floats(0, 0.2), st.floats(0.05, 0.95))
def test_what_lies_inside_another_stays_inside(seed: int, step: int, band: float, threshold: float) -> None:
    outer = blocks(seed, 40, 50, step)
    inner = outer & blocks(seed + 1, 40, 50, step + 1)
    small, large = refined(scene(seed, 40, 50), [inner, outer], SnapOptions(band=band, threshold=threshold))
    assert not (small & ~large).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.floats(0, 0.2), st.floats(0.5, 0.95))
def test_disjoint_masks_stay_disjoint_from_one_half_up(seed: int, step: int, band: float, threshold: float) -> None:
    one = blocks(seed, 40, 50, step)
    a, b = refined(scene(seed, 40, 50), [one, ~one], SnapOptions(band=band, threshold=threshold))
    assert not (a & b).any()


@pytest.mark.parametrize("band", [0.0, 1 / 40, 1 / 10])
def test_nothing_changes_beyond_the_band(band: float) -> None:
    import cv2

    pixels, before = scene(2, 80, 120, 40), blocks(2, 80, 120, 10)
    (after,) = refined(pixels, [before], SnapOptions(band=band, threshold=0.2))
    window = np.ones((2 * max(1, round(band * 80)) + 1, 2 * max(1, round(band * 120)) + 1), np.uint8)
    image = before.astype(np.uint8)
    assert not (after & (cv2.dilate(image, window) == 0)).any()
    assert not (~after & (cv2.erode(image, window) == 1)).any()
    assert (after != before).any()


def test_a_staircase_follows_the_edge_that_is_there() -> None:
    y, x = np.mgrid[:128, :128]
    disc = (y - 60) ** 2 + (x - 66) ** 2 < 40**2
    pixels = np.where(disc[..., None], [200, 60, 40], [60, 90, 160]).astype(np.uint8)
    patches = disc.reshape(16, 8, 16, 8).mean((1, 3)) > 0.5
    stairs = patches.repeat(8, 0).repeat(8, 1)
    (after,) = refined(pixels, [stairs], SnapOptions(band=8 / 128))
    assert (after == disc).mean() > 0.998 > (stairs == disc).mean()


def test_the_border_of_the_image_is_no_boundary() -> None:
    pixels = scene(4, 50, 60, 40)
    assert refined(pixels, [np.ones((50, 60), bool)])[0].all()


def test_order_company_and_threads_change_nothing() -> None:
    pixels = scene(9, 60, 70)
    masks = as_masks([blocks(k, 60, 70, 2 + k) for k in range(6)])
    refiner = snap_refiner(SnapOptions())
    expected = refiner.refine(pixels, masks)
    assert refiner.refine(pixels, masks[::-1]) == expected[::-1]
    assert [refiner.refine(pixels, [mask])[0] for mask in masks] == expected
    results: dict[int, list[Rle]] = {}
    threads = [threading.Thread(target=lambda k=k: results.__setitem__(k, refiner.refine(pixels, masks))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[k] for k in range(4)] == [expected] * 4


def test_empty_masks_and_no_masks() -> None:
    pixels = scene(6, 30, 40)
    empty = np.zeros((30, 40), bool)
    assert snap_refiner(SnapOptions()).refine(pixels, []) == []
    assert [mask.any() for mask in refined(pixels, [empty, empty])] == [False, False]
    with_another = refined(pixels, [empty, blocks(1, 30, 40, 5)])
    assert not with_another[0].any()
    assert with_another[1].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 2)])
def test_narrow_images(size: tuple[int, int]) -> None:
    pixels = scene(7, *size)
    table = run_table([rle.encode(np.ones(size, bool))])
    options = DEFAULT
    (after,) = snap_masks(table, superpixels(pixels, options.scales, options.smallest, options.most_pixels), options)
    assert rle.area(after) == size[0] * size[1]


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="40x30.*41x30"):
        snap_refiner(SnapOptions()).refine(np.zeros((30, 41, 3), np.uint8), as_masks([np.ones((30, 40), bool)]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"scales": ()}, {"scales": (10, -1)}, {"scales": (float("inf"),)}, {"scales": (float("nan"),)},
        {"smallest": 0}, {"band": -0.1}, {"band": 1.5}, {"threshold": 0}, {"threshold": 1}, {"most_pixels": 0},
    ],
)  # fmt: skip
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} .*: give"):
        SnapOptions(**wrong)
