"""snap and its superpixels against slow references, and what must hold of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats import rle
from ovskit.core.formats.rle import RunTable
from ovskit.core.records import Mask
from ovskit.core.refine.snap import SnapOptions, snap_masks, snap_refiner
from ovskit.core.refine.superpixels import superpixels
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import snap as reference


def scene(seed: int, height: int, width: int, noise: float = 6) -> np.ndarray:
    """Blocks of colour with a little noise."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (-(-height // 4), -(-width // 5), 3))
    pixels = blocks.repeat(4, axis=0).repeat(5, axis=1)[:height, :width] + random.normal(0, noise, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def label_maps(found, height: int, width: int) -> list[np.ndarray]:
    return [labels[found.cols[:width]][:, found.rows[:height]].T for labels in found.labels]


def as_mask(dense: np.ndarray, number: int = 1) -> Mask:
    outline = rle.encode(dense.astype(np.uint8))
    return Mask(number, 1, outline, rle.area(outline), rle.bbox(outline))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 13), st.integers(1, 12), st.sampled_from([(0.0,), (3.0, 40.0), (300.0,)]), st.integers(1, 9))
def test_superpixels_are_the_papers(seed: int, height: int, width: int, scales: tuple[float, ...], smallest: int) -> None:
    pixels = scene(seed, height, width)
    found = superpixels(pixels, scales, smallest, 1 << 20)
    for scale, labels in zip(scales, label_maps(found, height, width), strict=True):
        expected = reference.felzenszwalb(pixels, scale, smallest)
        np.testing.assert_array_equal(labels, expected)
    for sizes, labels in zip(found.sizes, label_maps(found, height, width), strict=True):
        np.testing.assert_array_equal(sizes[: labels.max() + 1], np.bincount(labels.ravel()))


def test_superpixels_are_those_of_scikit_image_up_to_its_smoothing() -> None:
    """Without noise and with edges sharper than either smoothing both find the blocks."""
    from skimage.segmentation import felzenszwalb

    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 20:] = (200, 30, 60)
    pixels[22:, 40:] = (20, 220, 90)
    ours = label_maps(superpixels(pixels, (50.0,), 60, 1 << 20), 40, 60)[0]
    theirs = felzenszwalb(pixels, scale=50, sigma=0.5, min_size=60)
    blocks = np.zeros((40, 60), int)
    blocks[:, 20:] = 1
    blocks[22:, 40:] = 2
    for labels in (ours, theirs):
        for block in range(3):
            values, counts = np.unique(labels[blocks == block], return_counts=True)
            assert counts.max() > 0.9 * (blocks == block).sum(), values


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.4, 0.5, 0.7]), st.sampled_from([0.05, 0.15, 1.0]))
def test_snapping_is_its_definition(seed: int, threshold: float, band: float) -> None:
    height, width = 17, 22
    random = np.random.default_rng(seed)
    pixels = scene(seed, height, width)
    dense = np.zeros((4, height, width), bool)
    for k in range(3):
        y, x = random.integers(0, height), random.integers(0, width)
        dense[k, y : y + random.integers(1, height), x : x + random.integers(1, width)] = True
    dense[2] ^= random.random((height, width)) < 0.05
    options = SnapOptions(scales=(5, 60), smallest=4, threshold=threshold, band=band)
    found = superpixels(pixels, options.scales, options.smallest, options.most_pixels)
    refined = snap_masks(RunTable([rle.encode(d) for d in dense]), found, options)
    reach = max(1, round(band * height)), max(1, round(band * width))
    for before, after in zip(dense, refined, strict=True):
        expected = reference.snap(before, label_maps(found, height, width), threshold, reach)
        np.testing.assert_array_equal(rle.decode(after).astype(bool), expected)


def test_staircases_become_edges() -> None:
    """A disc of one colour, given as 8-pixel blocks, comes back as the disc."""
    y, x = np.mgrid[:160, :160]
    disc = (y - 75) ** 2 + (x - 82) ** 2 < 50**2
    pixels = np.where(disc[..., None], (220, 80, 60), (40, 90, 160)).astype(np.uint8)
    coarse = disc.reshape(20, 8, 20, 8).mean(axis=(1, 3)) > 0.5
    blocks = coarse.repeat(8, axis=0).repeat(8, axis=1)

    def iou(a: np.ndarray) -> float:
        return float((a & disc).sum() / (a | disc).sum())

    after = rle.decode(snap_refiner(SnapOptions(band=1 / 16)).refine(pixels, [as_mask(blocks)])[0]).astype(bool)
    assert iou(blocks) < 0.95
    assert iou(after) > 0.97


def test_unions_of_superpixels_stay_as_they_are() -> None:
    pixels = scene(3, 40, 50)
    options = SnapOptions(scales=(40,), smallest=10)
    found = superpixels(pixels, options.scales, options.smallest, options.most_pixels)
    labels = label_maps(found, 40, 50)[0]
    dense = [np.isin(labels, np.flatnonzero(np.random.default_rng(k).random(labels.max() + 1) < 0.4)) for k in range(5)]
    before = [rle.encode(d) for d in dense]
    assert snap_masks(RunTable(before), found, options) == before


def test_masks_do_not_know_of_each_other() -> None:
    pixels = scene(8, 60, 80)
    masks = [as_mask(np.pad(np.ones((10 + k, 20)), ((5 + k, 45 - 2 * k), (3 * k, 60 - 3 * k))), k) for k in range(1, 6)]
    refine = snap_refiner().refine
    together = refine(pixels, masks)
    assert refine(pixels, masks[::-1]) == together[::-1]
    assert [refine(pixels, [m])[0] for m in masks] == together


def test_a_mask_inside_another_stays_inside() -> None:
    pixels = scene(5, 60, 80, noise=30)
    outer = np.zeros((60, 80), bool)
    outer[6:50, 8:70] = True
    inner = np.zeros_like(outer)
    inner[14:40, 16:40] = True
    small, large = (rle.decode(r) for r in snap_refiner().refine(pixels, [as_mask(inner), as_mask(outer, 2)]))
    assert not (small & ~large & 1).any()


def test_a_large_image_is_cut_at_a_smaller_size() -> None:
    pixels = scene(2, 60, 90)
    found = superpixels(pixels, (20.0,), 5, 1500)
    assert 1400 < found.labels.shape[1] * found.labels.shape[2] < 1600
    labels = label_maps(found, 60, 90)[0]
    np.testing.assert_array_equal(found.sizes[0, : labels.max() + 1], np.bincount(labels.ravel()))
    assert found.sizes.sum() == 60 * 90


def test_empty_and_full_masks() -> None:
    pixels = scene(1, 20, 30)
    masks = [as_mask(np.zeros((20, 30))), as_mask(np.ones((20, 30)), 2)]
    assert snap_refiner().refine(pixels, masks) == [m.rle for m in masks]
    assert snap_refiner().refine(pixels, []) == []


def test_masks_of_another_size() -> None:
    with pytest.raises(InputError):
        snap_refiner().refine(scene(1, 20, 30), [as_mask(np.ones((20, 31)))])


@pytest.mark.parametrize(
    "options",
    [
        {"scales": ()},
        {"scales": (-1.0,)},
        {"smallest": 0},
        {"band": -0.1},
        {"band": 2.0},
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"most_pixels": 0},
    ],
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="snap"):
        snap_refiner(SnapOptions(**options))
