"""The dense CRF against pydensecrf called directly, and against the slow reference where its lattice is exact enough."""

import math
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from ovskit.core.formats.streams.soft_margin import SoftMargin
from ovskit.core.masks import rle
from ovskit.core.records import Mask, Rle
from ovskit.core.refine import crf
from ovskit.core.refine.crf import crf_refiner
from ovskit.core.refine.methods.crf import CrfOptions
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import meanfield

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="the extra 'crf' is not installed")


def mask_of(pixels: np.ndarray, mask_id: int = 1, **extra: Any) -> Mask:
    coded = rle.encode(np.ascontiguousarray(pixels))
    return Mask(mask_id, 1, coded, rle.area(coded), rle.bbox(coded), extra=extra)


def dense(rles: Sequence[Rle]) -> list[np.ndarray]:
    return [rle.decode(one).astype(bool) for one in rles]


def scene(seed: int = 0, h: int = 60, w: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Three vertical stripes under noise, and which stripe a pixel is in."""
    stripes = np.broadcast_to(np.searchsorted([25, 55], np.arange(w), side="right"), (h, w))
    colours = np.array([[200, 60, 60], [60, 180, 70], [70, 60, 190]])
    noise = np.random.default_rng(seed).integers(-4, 5, (h, w, 3))
    return np.clip(colours[stripes] + noise, 0, 255).astype(np.uint8), stripes


def blocky(labels: np.ndarray, side: int = 8) -> np.ndarray:
    """The labels as a grid of coarse patches shows them."""
    y, x = (np.minimum(np.arange(size) // side * side + side // 2, size - 1) for size in labels.shape)
    return labels[np.ix_(y, x)]


def direct(pixels: np.ndarray, labels: np.ndarray, count: int, confidence: float) -> np.ndarray:
    """pydensecrf with the published settings; its own function makes the unary."""
    from pydensecrf.utils import unary_from_labels

    h, w = labels.shape
    model = densecrf.DenseCRF2D(w, h, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary_from_labels(labels, count, gt_prob=confidence, zero_unsure=False)))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(pixels), compat=10)
    return np.argmax(model.inference(10), axis=0).reshape(h, w)


def test_one_mask_is_pydensecrfs_two_labels() -> None:
    pixels, stripes = scene()
    pixels = np.roll(pixels, 3, axis=0)
    given = blocky(stripes) == 1
    options = CrfOptions(margin=100, confidence=0.9)
    found = dense(crf_refiner(options).refine(pixels, [mask_of(given)]))[0]
    assert np.array_equal(found, direct(pixels, given.astype(np.int32), 2, 0.9) == 1)
    assert not np.array_equal(found, given)


def test_the_crop_is_the_box_and_its_margin() -> None:
    pixels, _ = scene()
    given = np.zeros((60, 80), bool)
    given[20:40, 21:44] = True
    found = dense(crf_refiner(CrfOptions(margin=10, confidence=0.9)).refine(pixels, [mask_of(given)]))[0]
    part = np.s_[10:50, 11:54]
    assert np.array_equal(found[part], direct(pixels[part], given[part].astype(np.int32), 2, 0.9) == 1)
    found[part] = False
    assert not found.any()


def test_it_is_about_the_mean_field_of_every_pair_of_pixels() -> None:
    pixels, stripes = scene(h=12, w=80)
    pixels, stripes = pixels[:, 15:35], stripes[:, 15:35]
    given = stripes == 1
    given[3:6, 7:13] ^= True
    kernels = {"gaussian_sxy": 3.0, "gaussian_compat": 3.0, "bilateral_sxy": 50.0, "bilateral_srgb": 5.0, "bilateral_compat": 10.0}
    listens = meanfield.weights(pixels, np.ones((240, 240)), **kernels)
    expected = meanfield.foreground(listens, given, 0.9, 10)
    found = dense(crf_refiner(CrfOptions(margin=100, confidence=0.9)).refine(pixels, [mask_of(given)]))[0]
    assert np.array_equal(found, expected > 0.5)
    assert np.array_equal(found, stripes == 1)


def test_a_soft_margin_is_the_unary_of_pydensecrf() -> None:
    pixels, stripes = scene()
    given = blocky(stripes) == 1
    given[10:30, 50:74] = True  # a wrong piece
    options = CrfOptions(margin=100, sharpness=1.5, confidence=1 - 1e-9)
    margin = np.random.default_rng(5).normal(0, 0.2, (8, 10)).astype(np.float32)
    kept = SoftMargin((8, 10), (0, 0), margin)
    found = dense(crf_refiner(options).refine(pixels, [mask_of(given, soft=kept.to_json())]))[0]
    sure = 1 / (1 + np.exp(-np.minimum(np.log(1e9), 1.5 * np.abs(kept.in_box((0, 0, 60, 80), 60, 80)) / np.abs(margin).mean())))
    foreground = np.where(given, sure, 1 - sure)
    model = densecrf.DenseCRF2D(80, 60, 2)
    model.setUnaryEnergy(np.ascontiguousarray(-np.log(np.stack([1 - foreground, foreground]).reshape(2, -1)), np.float32))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(pixels), compat=10)
    expected = np.argmax(model.inference(10), axis=0).reshape(60, 80) == 1
    assert (found != expected).mean() < 0.002  # the margin is kept in 127 steps
    hard = dense(crf_refiner(options).refine(pixels, [mask_of(given)]))[0]
    assert (found != hard).mean() > 0.02


@pytest.mark.parametrize("joint", [False, True])
def test_coarse_masks_snap_to_the_edges_and_exact_ones_stay(joint: bool) -> None:
    pixels, stripes = scene()
    refine = crf_refiner(CrfOptions(joint=joint)).refine
    for labels in (blocky(stripes), stripes):
        masks = [mask_of(labels == k, k + 1, threshold=0.4) for k in range(3)]
        for k, found in enumerate(dense(refine(pixels, masks))):
            assert np.array_equal(found, stripes == k)


def test_joint_regions_are_pydensecrfs_labels_and_stay_disjoint() -> None:
    pixels, stripes = scene()
    random = np.random.default_rng(4)
    pixels = np.clip(pixels.astype(int) + random.integers(-25, 26, pixels.shape), 0, 255).astype(np.uint8)
    labels = blocky(stripes)
    labels[10:30, 30:50] = 2  # a wrong one
    labels[:, 70:] = 3  # what no mask covers
    masks = [mask_of(labels == k, k + 1, count=12) for k in range(3)]
    found = dense(crf_refiner(CrfOptions(joint=True, confidence=0.8)).refine(pixels, masks))
    expected = direct(pixels, ((labels + 1) % 4).astype(np.int32), 4, 0.8)  # uncovered is the first label
    assert all(np.array_equal(found[k], expected == k + 1) for k in range(3))
    assert not np.array_equal(expected, (labels + 1) % 4)


@pytest.mark.parametrize("uncovered", [False, True])
def test_joint_regions_of_whole_patches_are_scaled_up_bilinearly(uncovered: bool) -> None:
    """As HASSOD does it: the unary of a label is the logarithm of its patches' share, scaled to the image and cut at a least one."""
    pixels, stripes = scene(h=64)
    cells = stripes[4::8, 4::8].copy()
    cells[1:4, 4:6] = 2  # a wrong piece
    if uncovered:
        cells[:, 9:] = 3
    labels = cells.repeat(8, axis=0).repeat(8, axis=1)
    masks = [mask_of(labels == k, k + 1, count=12, soft={"grid": [8, 10]}) for k in range(3)]
    options = CrfOptions(joint=True, confidence=1 - 1e-5, soft_area=0)
    found = dense(crf_refiner(options).refine(pixels, masks))
    count = 4 if uncovered else 3
    shares = np.stack([cv2.resize((cells == k).astype(np.float32), (80, 64), interpolation=cv2.INTER_LINEAR) for k in range(count)])
    model = densecrf.DenseCRF2D(80, 64, count)
    model.setUnaryEnergy(np.ascontiguousarray(-np.log(np.clip(shares, 1e-5, 1)).reshape(count, -1), np.float32))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(pixels), compat=10)
    expected = np.argmax(model.inference(10), axis=0).reshape(64, 80)
    assert all(np.mean(found[k] != (expected == k)) < 0.002 for k in range(3))
    hard = dense(crf_refiner(replace(options, sharpness=math.inf)).refine(pixels, masks))
    assert sum((a != b).sum() for a, b in zip(found, hard, strict=True)) > 50
    assert (np.sum(found, axis=0) <= 1).all()


def test_joint_keeps_levels_apart_and_leaves_out_what_overlaps() -> None:
    pixels, stripes = scene()
    labels = blocky(stripes)
    first, second, whole = (
        mask_of(labels == 0, 1, threshold=0.6),
        mask_of(labels == 1, 2, threshold=0.6),
        mask_of(labels < 2, 3, threshold=0.3),
    )
    overlapping, without = mask_of(labels != 0, 4, threshold=0.6), mask_of(labels == 2, 5)
    masks = [first, second, whole, overlapping, without]
    joint, alone = crf_refiner(CrfOptions(joint=True, confidence=0.7)).refine, crf_refiner(CrfOptions(confidence=0.7)).refine
    found = joint(pixels, masks)
    assert found[:2] == joint(pixels, [first, second])
    assert found[2] == joint(pixels, [whole])[0]
    assert found[3:] == alone(pixels, [overlapping, without])


def test_a_partition_too_large_for_the_memory_is_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, stripes = scene()
    masks = [mask_of(blocky(stripes) == k, k + 1, threshold=0.4) for k in range(3)]
    monkeypatch.setattr(crf, "_MOST_VALUES", 3 * 60 * 80)
    found = dense(crf_refiner(CrfOptions(joint=True)).refine(pixels, masks))
    assert all(np.array_equal(found[k], stripes == k) for k in range(3))


@pytest.mark.parametrize("joint", [False, True])
def test_empty_and_full_masks_survive(joint: bool) -> None:
    pixels, stripes = scene()
    nothing, everything = mask_of(stripes > 5, 1, threshold=0.6), mask_of(stripes > -1, 2, threshold=0.6)
    refine = crf_refiner(CrfOptions(joint=joint)).refine
    assert refine(pixels, [nothing, everything]) == [nothing.rle, everything.rle]
    assert refine(pixels, []) == []
    dot = mask_of(np.ones((1, 1), bool), threshold=0.1)
    assert refine(np.zeros((1, 1, 3), np.uint8), [dot]) == [dot.rle]


def test_threads_and_company_change_nothing() -> None:
    pixels, stripes = scene()
    masks = [mask_of(blocky(stripes) == k, k + 1) for k in range(3)]
    refine = crf_refiner(CrfOptions()).refine
    expected = [refine(pixels, [mask])[0] for mask in masks]
    found: list[list[Rle]] = []
    threads = [threading.Thread(target=lambda: found.append(refine(pixels, masks))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_without_pydensecrf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(UsageError, match=r"needs pip install 'ovskit\[crf\]'"):
        crf_refiner(CrfOptions())


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"confidence": 1.0}, {"margin": -1}, {"soft_area": -1}, {"bilateral_srgb": 0}, {"bilateral_compat": -1}]
)
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))} .*: give a"):
        CrfOptions(**wrong)


def test_no_soft_margin_is_an_infinite_sharpness() -> None:
    assert math.isinf(CrfOptions(sharpness=math.inf).sharpness)


def test_masks_of_another_size() -> None:
    with pytest.raises(InputError, match="4x3 pixels, their image has 6x5"):
        crf_refiner(CrfOptions()).refine(np.zeros((5, 6, 3), np.uint8), [mask_of(np.ones((3, 4), bool))])
