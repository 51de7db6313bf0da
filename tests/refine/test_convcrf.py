"""The windowed CRF against the slow reference, what it must do to a photograph's edge, and what it must not depend on."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams.soft_margin import SoftMargin
from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Mask, Rle
from ovskit.core.refine import convcrf
from ovskit.core.refine.convcrf import Field, convcrf_refiner, mean_field_by_torch, window_of
from ovskit.core.refine.methods.convcrf import ConvCrfOptions
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import meanfield

KERNELS = ("gaussian_sxy", "gaussian_compat", "bilateral_sxy", "bilateral_srgb", "bilateral_compat")
# Weak enough that probabilities are not all 0 or 1 in the end.
SOFT = ConvCrfOptions(gaussian_sxy=1.5, gaussian_compat=1.2, bilateral_sxy=6, bilateral_srgb=20, bilateral_compat=1.7, confidence=0.7)


def mask_of(pixels: np.ndarray, mask_id: int = 1) -> Mask:
    coded = rle.encode(np.ascontiguousarray(pixels))
    return Mask(mask_id, 1, coded, rle.area(coded), rle.bbox(coded))


def photograph(random: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Blocks of colour under noise."""
    blocks = random.integers(0, 256, (h // 4 + 1, w // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)[:h, :w]
    return np.clip(blocks + random.integers(-12, 13, (h, w, 3)), 0, 255).astype(np.uint8)


def blob(random: np.random.Generator, h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    size = random.uniform(1, max(h, w))
    return (y - random.uniform(0, h)) ** 2 + (x - random.uniform(0, w)) ** 2 < size**2


def kernels_of(options: ConvCrfOptions) -> dict[str, Any]:
    return {key: value for key, value in asdict(options).items() if key in KERNELS}


def odds_of(inside: np.ndarray, options: ConvCrfOptions) -> np.ndarray:
    certain = math.log(options.confidence / (1 - options.confidence))
    return np.where(inside, certain, -certain).astype(np.float32)


def by_reference(pixels: np.ndarray, mask: np.ndarray, options: ConvCrfOptions, dense: bool, sure: np.ndarray | None = None) -> np.ndarray:
    h, w = mask.shape
    window = window_of(options)
    shares = {(int(dy), int(dx)): float(share) for (dy, dx), share in zip(window.offsets, window.share, strict=True)}
    counted = np.ones((h * w, h * w)) if dense else meanfield.counted_in_window(h, w, shares)
    listens = meanfield.weights(pixels, counted, **kernels_of(options))
    return 2 * meanfield.foreground(listens, mask, options.confidence if sure is None else sure, options.iterations) - 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 13), st.integers(1, 13), st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 6),
    st.sampled_from([{}, {"rings": 1, "directions": 4}, {"window": 3}, {"window": 3, "dilation": 4}, {"window": 5, "dilation": 2}]),
)  # fmt: skip
def test_beliefs_are_the_references(h: int, w: int, seed: int, by_torch: bool, iterations: int, window: dict[str, int]) -> None:
    random = np.random.default_rng(seed)
    pixels, mask = photograph(random, h, w), blob(random, h, w)
    options = replace(SOFT, iterations=iterations, **window)
    top, left = int(random.integers(0, h)), int(random.integers(0, w))
    box = (top, left, int(random.integers(top + 1, h + 1)), int(random.integers(left + 1, w + 1)))
    field = Field(pixels, window_of(options), options, None)
    crop = np.s_[box[0] : box[2], box[1] : box[3]]
    sure = random.uniform(0.5, 0.9, mask[crop].shape)  # every pixel's own confidence
    odds = [(np.where(mask[crop], 1, -1) * np.log(sure / (1 - sure))).astype(np.float32)]
    found = mean_field_by_torch(field, [box], odds, torch.device("cpu")) if by_torch else field.beliefs([box], odds)
    expected = by_reference(pixels[crop], mask[crop], options, False, sure)
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=5e-5)


def test_a_window_over_the_whole_image_is_the_dense_crf() -> None:
    random = np.random.default_rng(3)
    pixels, mask = photograph(random, 9, 11), blob(random, 9, 11)
    options = replace(SOFT, window=23, dilation=1)
    box = (0, 0, 9, 11)
    found = Field(pixels, window_of(options), options, None).beliefs([box], [odds_of(mask, options)])[0]
    expected = by_reference(pixels, mask, options, dense=True)
    assert -0.99 < expected.min() < -0.4 < 0.4 < expected.max() < 0.99  # so that the comparison says something
    np.testing.assert_allclose(found, expected, atol=5e-5)


def test_the_window_is_symmetric_and_counts_every_pixel_of_its_disc_about_once() -> None:
    window = window_of(ConvCrfOptions())
    offsets = {tuple(offset): share for offset, share in zip(window.offsets.tolist(), window.share, strict=True)}
    assert len(offsets) == len(window.share)
    assert all(offsets[-y, -x] == share for (y, x), share in offsets.items())
    assert offsets[0, 0] < 1
    outermost = 1.25 * ConvCrfOptions().bilateral_sxy
    reach = outermost * math.sqrt((outermost / 2.5) ** (1 / 8))  # the outermost ring's outer edge
    assert sum(offsets.values()) == pytest.approx(math.pi * reach**2, rel=1e-3)


def two_colours(h: int = 60, w: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A disc on a background, and where it is."""
    y, x = np.mgrid[:h, :w]
    disc = (y - h / 2) ** 2 + (x - w / 2) ** 2 < 18**2
    return np.where(disc[..., None], np.uint8([200, 40, 60]), np.uint8([60, 90, 180])), disc


def refined(pixels: np.ndarray, masks: Sequence[np.ndarray], **options: Any) -> list[np.ndarray]:
    found = convcrf_refiner(ConvCrfOptions(**options)).refine(pixels, [mask_of(mask, k + 1) for k, mask in enumerate(masks)])
    return [rle.decode(one).astype(bool) for one in found]


def blocky(mask: np.ndarray, side: int = 6) -> np.ndarray:
    """The mask as a grid of coarse patches shows it."""
    y, x = (np.minimum(np.arange(size) // side * side + side // 2, size - 1) for size in mask.shape)
    return mask[np.ix_(y, x)]


def test_a_coarse_mask_snaps_to_the_edge() -> None:
    pixels, disc = two_colours()
    coarse = blocky(disc)
    assert (coarse != disc).sum() > 140
    assert (refined(pixels, [coarse])[0] != disc).sum() <= 5
    assert np.array_equal(refined(pixels, [coarse], iterations=10)[0], disc)


def test_an_exact_mask_stays() -> None:
    pixels, disc = two_colours()
    found = refined(pixels, [disc, ~disc])
    assert np.array_equal(found[0], disc)
    assert np.array_equal(found[1], ~disc)


def test_empty_and_full_masks_survive() -> None:
    pixels, disc = two_colours()
    nothing, everything = np.zeros_like(disc), np.ones_like(disc)
    found = refined(pixels, [nothing, everything])
    assert not found[0].any()
    assert found[1].all()
    assert convcrf_refiner(ConvCrfOptions()).refine(pixels, []) == []


def test_images_of_one_pixel_and_one_row() -> None:
    for shape in ((1, 1), (1, 9), (9, 1)):
        one = np.ones(shape, bool)
        assert refined(np.full((*shape, 3), 7, np.uint8), [one])[0].all()


def test_a_soft_margin_lets_the_image_decide_where_it_is_unsure() -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, 21:] = 90  # the image's edge
    margin = np.tile(np.linspace(-1, 1, 6, dtype=np.float32), (4, 1))  # crosses 0 at column 24
    inside = np.broadcast_to(np.arange(48) >= 24, (32, 48))
    mask = replace(mask_of(inside), extra={"soft": SoftMargin((4, 6), (0, 0), margin).to_json()})
    options = ConvCrfOptions(confidence=0.9999, gaussian_compat=1, bilateral_compat=4)
    hard, soft = (decoded(convcrf_refiner(replace(options, sharpness=s)).refine(pixels, [mask])[0]) for s in (math.inf, 2.0))
    assert np.array_equal(hard, inside)
    assert np.array_equal(soft, np.broadcast_to(np.arange(48) >= 21, (32, 48)))


def decoded(one: Rle) -> np.ndarray:
    return rle.decode(one).astype(bool)


def test_an_image_of_noise_stays_finite() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2, (40, 40, 3), dtype=np.uint8) * 255  # no pixel has a neighbour like it within reach of srgb 0.1
    options = ConvCrfOptions(bilateral_srgb=0.1)
    found = Field(pixels, window_of(options), options, None).beliefs([(0, 0, 40, 40)], [odds_of(blob(random, 40, 40), options)])[0]
    assert np.isfinite(found).all()


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, list[Mask], list[Rle]]:
    random = np.random.default_rng(11)
    pixels = photograph(random, 70, 90)
    masks = [mask_of(blob(random, 70, 90), k + 1) for k in range(25)]
    return pixels, masks, convcrf_refiner(ConvCrfOptions()).refine(pixels, masks)


def test_nothing_depends_on_the_other_masks(crowd: tuple[np.ndarray, list[Mask], list[Rle]], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, masks, expected = crowd
    assert expected != [mask.rle for mask in masks]
    refine = convcrf_refiner(ConvCrfOptions()).refine
    assert [refine(pixels, [mask])[0] for mask in masks] == expected
    assert refine(pixels, masks[::-1]) == expected[::-1]
    monkeypatch.setattr(convcrf, "_MOST_PIXELS", 5000)
    assert refine(pixels, masks) == expected


def test_nothing_depends_on_threads(crowd: tuple[np.ndarray, list[Mask], list[Rle]]) -> None:
    pixels, masks, expected = crowd
    refine = convcrf_refiner(ConvCrfOptions()).refine
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: refine(pixels, masks), range(8))) == [expected] * 8


def test_the_image_is_untouched(crowd: tuple[np.ndarray, list[Mask], list[Rle]]) -> None:
    pixels, masks, expected = crowd
    before = pixels.copy()
    pixels.flags.writeable = False
    assert convcrf_refiner(ConvCrfOptions()).refine(pixels, masks) == expected
    assert np.array_equal(pixels, before)


def test_torch_agrees_with_the_compiled_kernel(crowd: tuple[np.ndarray, list[Mask], list[Rle]]) -> None:
    pixels, masks, _ = crowd
    masks = masks[:5]
    options = ConvCrfOptions(iterations=3)
    table = run_table([mask.rle for mask in masks])
    boxes = [convcrf.box_around(table, k, 20) for k in range(len(masks))]
    odds = [odds_of(convcrf.decode_box(table, k, box), options) for k, box in enumerate(boxes)]
    field = Field(pixels, window_of(options), options, None)
    for one, other in zip(field.beliefs(boxes, odds), mean_field_by_torch(field, boxes, odds, torch.device("cpu")), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0}, {"confidence": 0.5}, {"confidence": 1.0}, {"sharpness": 0},
        {"margin": -1}, {"bilateral_sxy": 0}, {"gaussian_compat": -1},
        {"bilateral_srgb": float("nan")}, {"bilateral_sxy": float("inf")}, {"dilation": 0}, {"rings": 0},
        {"directions": 5}, {"directions": 2},
    ],
)  # fmt: skip
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))} .*: give a"):
        ConvCrfOptions(**wrong)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_without_a_middle(window: int) -> None:
    with pytest.raises(UsageError, match=f"convcrf: a window of {window}: choose an odd one"):
        ConvCrfOptions(window=window)


def test_masks_of_another_size() -> None:
    with pytest.raises(InputError, match="4x3 pixels, their image has 6x5"):
        convcrf_refiner(ConvCrfOptions()).refine(np.zeros((5, 6, 3), np.uint8), [mask_of(np.ones((3, 4), bool))])
