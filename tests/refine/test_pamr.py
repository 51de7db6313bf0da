"""Pixel-adaptive mask refinement against the paper's formulas pixel by pixel, and what must hold of any refiner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.masks.boxes import box_around
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Mask
from ovskit.core.refine import pamr, pamr_kernels
from ovskit.core.refine.methods.pamr import METHOD, PamrOptions
from ovskit.core.refine.pamr import pamr_refiner
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import pamr as reference


def mask_of(pixels: np.ndarray, k: int = 1) -> Mask:
    found = rle.encode(pixels.astype(np.uint8))
    return Mask(k, 1, found, rle.area(found), rle.bbox(found))


def refine(image: np.ndarray, *masks: np.ndarray, **options: object) -> list[np.ndarray]:
    refined = pamr_refiner(PamrOptions(**options)).refine(image, [mask_of(m, k + 1) for k, m in enumerate(masks)])  # type: ignore[arg-type]
    return [rle.decode(r).astype(bool) for r in refined]


def beliefs(image: np.ndarray, masks: list[np.ndarray], iterations: int, dilations: tuple[int, ...]) -> list[np.ndarray]:
    """Laid at their places in the image, as the refiner has them in their boxes."""
    around = [(y * step, x * step) for step in dilations for y, x in pamr._EIGHT]
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
    scales = pamr_kernels.colour_scales(planes, np.array(around + [(0, 0)] * len(dilations), np.int64), 1e-8, 0.1)
    table = run_table([mask_of(mask).rle for mask in masks])
    boxes = [box_around(table, k, iterations * max(dilations)) for k in range(len(masks))]
    crops = [np.ascontiguousarray(mask[b[0] : b[2], b[1] : b[3]], np.uint8) for mask, b in zip(masks, boxes, strict=True)]
    laid = []
    for box, found in zip(boxes, pamr.beliefs_of(planes, scales, np.array(around, np.int64), boxes, crops, iterations), strict=True):
        laid.append(np.zeros(image.shape[:2]))
        laid[-1][box[0] : box[2], box[1] : box[3]] = found
    return laid


def scene(height: int, width: int, seed: int, kind: str = "noise") -> tuple[np.ndarray, list[np.ndarray]]:
    """An image, and masks of which each has a pixel."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3))
    if kind == "flat":
        image[...] = random.integers(0, 256, 3)
    elif kind == "two":
        image = np.where(np.arange(width)[None, :, None] < width / 2, random.integers(0, 256, 3), random.integers(0, 256, 3)) + 0 * image
    elif kind == "one colour":
        image[:, :, 1:] = 7
    masks = []
    for _ in range(3):
        y, x = random.integers(0, height), random.integers(0, width)
        mask = np.zeros((height, width), bool)
        mask[y : y + random.integers(1, height + 1), x : x + random.integers(1, width + 1)] = True
        masks.append(mask)
    return image.astype(np.uint8), masks


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 13), width=st.integers(1, 13), seed=st.integers(0, 10**6), iterations=st.integers(1, 4),
    dilations=st.sampled_from([(1,), (2, 3), (1, 5), (8, 16)]), kind=st.sampled_from(["noise", "flat", "two", "one colour"]),
)  # fmt: skip
def test_every_belief_is_the_papers(height: int, width: int, seed: int, iterations: int, dilations: tuple[int, ...], kind: str) -> None:
    image, masks = scene(height, width, seed, kind)
    expected = reference.pamr(image, np.stack(masks), iterations, dilations)
    np.testing.assert_allclose(np.stack(beliefs(image, masks, iterations, dilations)), expected, atol=1e-5)


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["noise", "flat", "two"]))
def test_weights_sum_to_1(seed: int, kind: str) -> None:
    image, _ = scene(9, 14, seed, kind)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    offsets = np.array([(8 * y, 8 * x) for y, x in pamr._EIGHT], np.int64)
    scales = pamr_kernels.colour_scales(planes, offsets, 1e-8, 0.1)
    weights = np.empty((8, 14), np.float32)
    for y in range(9):
        pamr_kernels.weights_of_row(planes, scales, offsets, y, 0, 14, weights)
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)


def test_in_a_constant_image_beliefs_are_means_of_the_neighbours() -> None:
    image = np.full((40, 50, 3), 93, np.uint8)
    mask = np.random.default_rng(1).random((40, 50)) < 0.4
    (found,) = beliefs(image, [mask], 1, (2, 5))
    inside = np.pad(mask.astype(float), 5, mode="edge")
    shifted = [inside[5 + y * s : 45 + y * s, 5 + x * s : 55 + x * s] for s in (2, 5) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    np.testing.assert_allclose(found, np.mean(shifted, axis=0), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), together=st.sampled_from(["yes", "no", "auto"]))
def test_a_mask_of_everything_stays(seed: int, together: str) -> None:
    image, _ = scene(11, 17, seed)
    everything = np.ones((11, 17), bool)
    assert refine(image, everything, together=together)[0].all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), together=st.sampled_from(["yes", "no", "auto"]))
def test_pixels_go_where_they_are_most_believed(seed: int, together: str) -> None:
    image, masks = scene(12, 15, seed)
    parts = [masks[0], masks[1] & ~masks[0], masks[2] & ~masks[0] & ~masks[1]]
    parts = [part for part in parts if part.any()]
    expected = reference.pamr(image, np.stack(parts), 2, (1, 3))
    found = refine(image, *parts, iterations=2, dilations=(1, 3), together=together)
    if together == "no":
        assert all(
            (one[abs(belief - 0.5) > 1e-5] == (belief > 0.5)[abs(belief - 0.5) > 1e-5]).all()
            for one, belief in zip(found, expected, strict=True)
        )
        return
    with_rest = np.concatenate([1 - expected.sum(axis=0, keepdims=True), expected])
    ranked = np.sort(with_rest, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-5
    for k, one in enumerate(found, 1):
        assert (one[clear] == (with_rest.argmax(axis=0) == k)[clear]).all()
    assert np.sum(found, axis=0).max() <= 1


def test_masks_that_overlap_are_not_shared_out_unless_one_says_so() -> None:
    image, _ = scene(20, 20, 3, "two")
    large, small = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    large[2:18, 2:18], small[6:12, 6:12] = True, True
    alone = [refine(image, mask, dilations=(1,))[0] for mask in (large, small)]
    for together in ("auto", "no"):
        for one, expected in zip(refine(image, large, small, dilations=(1,), together=together), alone, strict=True):
            np.testing.assert_array_equal(one, expected)
    first, second = refine(image, large, small, dilations=(1,), together="yes")
    assert not (first & second).any()


def test_edges_move_to_those_of_the_image() -> None:
    y, x = np.mgrid[:60, :80]
    disc = (y - 30) ** 2 + (x - 40) ** 2 < 18**2
    random = np.random.default_rng(0)
    image = np.clip(np.where(disc[:, :, None], [200, 60, 40], [40, 90, 190]) + random.normal(0, 8, (60, 80, 3)), 0, 255).astype(np.uint8)
    coarse = np.kron(disc[4::8, 4::8], np.ones((8, 8), bool))[:60, :80]
    coarse = np.pad(coarse, [(0, 60 - coarse.shape[0]), (0, 80 - coarse.shape[1])])

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum())

    (found,) = refine(image, coarse, dilations=(1, 2, 4))
    assert iou(found, disc) > iou(coarse, disc) + 0.02
    assert iou(found, disc) > 0.95


def test_what_is_computed_together_or_kept_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image, masks = scene(30, 34, 8)
    for together in ("no", "yes"):
        whole = refine(image, *masks, together=together, iterations=3, dilations=(1, 2))
        for limit in ("_MOST_PIXELS", "_MOST_WEIGHTS"):
            monkeypatch.setattr(pamr, limit, 1)
            for a, b in zip(whole, refine(image, *masks, together=together, iterations=3, dilations=(1, 2)), strict=True):
                np.testing.assert_array_equal(a, b)
            monkeypatch.undo()


def test_no_mask_and_a_mask_of_another_size() -> None:
    refiner = pamr_refiner(PamrOptions())
    assert refiner.refine(np.zeros((5, 6, 3), np.uint8), []) == []
    with pytest.raises(InputError, match="their image has 6x5"):
        refiner.refine(np.zeros((5, 6, 3), np.uint8), [mask_of(np.ones((3, 4), bool))])


@pytest.mark.parametrize("dilations", [(), (0,), (8, -1), (2000,)])
def test_dilations_that_are_none(dilations: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="pamr: dilations="):
        METHOD.options(dilations=dilations)
