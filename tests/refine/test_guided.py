"""The guided filter against the paper's formulas window by window, and what must hold of any refiner."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.records import Mask, Rle
from ovskit.core.refine.guided import Guide, guided_refiner, radius_for
from ovskit.core.refine.methods.guided import MAX_RADIUS, METHOD, MIN_EPS, GuidedOptions
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference.guided import guided_filter

NO_SHARE = float("inf")


def mask_of(pixels: np.ndarray, k: int = 1) -> Mask:
    found = rle.encode(pixels.astype(np.uint8))
    return Mask(k, 1, found, rle.area(found), rle.bbox(found))


def refine(image: np.ndarray, *masks: np.ndarray, **options: float) -> list[np.ndarray]:
    refined = guided_refiner(GuidedOptions(**options)).refine(image, [mask_of(m, k + 1) for k, m in enumerate(masks)])
    return [rle.decode(r) for r in refined]


def whole(image: np.ndarray, mask: np.ndarray, radius: int, eps: float, side: int = 10_000) -> np.ndarray:
    """q of every pixel, in one tile unless ``side`` is less."""
    return cropped(image, mask, radius, eps, (0, 0, *mask.shape), side)


def cropped(
    image: np.ndarray,
    mask: np.ndarray,
    radius: int,
    eps: float,
    box: tuple[int, int, int, int],
    side: int = 10_000,
    *,
    shared: bool = False,
) -> np.ndarray:
    """q of every pixel of ``box``, in which ``mask`` is."""
    found = np.full(mask.shape, np.nan)
    for part, q in Guide(image, radius, eps, shared=shared, side=side).filtered(mask, box):
        found[part[0] - box[0] : part[2] - box[0], part[1] - box[1] : part[3] - box[1]] = q
    return found


def scene(height: int, width: int, seed: int, noise: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """A disc on a ground of another colour, with noise, and the disc's mask."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disc = (y - height * 0.45) ** 2 + (x - width * 0.55) ** 2 < (0.3 * min(height, width)) ** 2
    pixels = np.where(disc[:, :, None], random.integers(0, 256, 3), random.integers(0, 256, 3)) + random.normal(
        0, noise, (height, width, 3)
    )
    return np.clip(pixels, 0, 255).astype(np.uint8), disc.astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(1, 9), st.sampled_from([MIN_EPS, 1e-4, 1e-2, 1.0]), st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "flat", "one colour", "bright", "ramp"]),
)  # fmt: skip
def test_every_value_is_the_papers(height: int, width: int, radius: int, eps: float, seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3))
    if kind == "flat":
        image[...] = random.integers(0, 256, 3)
    elif kind == "one colour":  # covariances of rank one
        image = random.integers(0, 256, (height, width, 1)) * np.array([1, 1, 0])
    elif kind == "bright":  # where float32 sums of squares would have nothing left
        image = 253 + random.integers(0, 3, (height, width, 3))
    elif kind == "ramp":
        image = np.minimum(255, 9 * np.arange(width)[None, :, None] + random.integers(0, 2, (height, width, 3)))
    mask = (random.random((height, width)) < random.uniform(0.05, 0.95)).astype(np.uint8)
    image = image.astype(np.uint8)
    expected = guided_filter(image, mask, radius, eps)
    assert np.abs(whole(image, mask, radius, eps) - expected).max() < 2e-7


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([MIN_EPS, 1e-3]), st.sampled_from([0.25, NO_SHARE]))
def test_a_crop_gives_the_whole_images_result_to_the_bit(seed: int, radius: int, eps: float, share: float) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 60, 2)
    image, _ = scene(int(height), int(width), seed)
    masks = []
    for _ in range(4):
        mask = np.zeros((height, width), np.uint8)
        top, left = random.integers(0, height), random.integers(0, width)
        mask[top : top + random.integers(1, 20), left : left + random.integers(1, 20)] = 1
        masks.append(mask & (random.random((height, width)) < 0.9))
    refined = refine(image, *masks, radius=radius, eps=eps, share=share)
    for mask, found in zip(masks, refined, strict=True):
        if mask.any():
            own = radius_for(int(mask.sum()), GuidedOptions(radius, eps, share))
            assert np.array_equal(found, whole(image, mask, own, eps) > 0.5)
            # Not only what is above one half: every value, and wherever the crop lies.
            y, x = np.nonzero(mask)
            reach = 2 * own
            box = (max(0, y.min() - reach), max(0, x.min() - reach), min(height, y.max() + 1 + reach), min(width, x.max() + 1 + reach))
            inside = np.s_[box[0] : box[2], box[1] : box[3]]
            found = cropped(image, np.ascontiguousarray(mask[inside]), own, eps, box)
            assert np.array_equal(found, whole(image, mask, own, eps)[inside])
        else:
            assert not found.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([1, 3, 8, 20, 59, 60]), st.booleans())
def test_tiles_of_any_side_give_the_same_bits(seed: int, radius: int, side: int, shared: bool) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(length) for length in random.integers(10, 60, 2))
    image, disc = scene(height, width, seed)
    specks = (random.random(disc.shape) < 0.02).astype(np.uint8)
    for mask in (disc, disc ^ specks, np.ones_like(disc)):
        assert np.array_equal(
            cropped(image, mask, radius, 1e-3, (0, 0, height, width), side, shared=shared), whole(image, mask, radius, 1e-3)
        )


def test_memory_does_not_grow_with_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sum that is made on the way is larger than a tile and what is 2r around it."""
    seen = []
    summed = Guide._sum
    monkeypatch.setattr(Guide, "_sum", lambda self, values, depth: seen.append(values.shape) or summed(self, values, depth))
    image = np.zeros((700, 3000, 3), np.uint8)
    mask = np.zeros((700, 3000), np.uint8)
    mask[100:600, 10:2990] = 1
    assert refine(image, mask, radius=10)[0].any()
    assert max(height * width for height, width, _ in seen) <= (256 + 4 * 10) ** 2


def test_nothing_is_left_beyond_the_crop() -> None:
    image, mask = scene(50, 60, 3)
    small = np.zeros_like(mask)
    small[20:26, 30:37] = 1
    q = whole(image, small, 4, 1e-3)
    q[20 - 8 : 26 + 8, 30 - 8 : 37 + 8] = 0
    assert not q.any()


def test_a_shifted_mask_snaps_back_to_the_edge() -> None:
    image, disc = scene(80, 90, 1)
    shifted = np.roll(disc, (2, 2), (0, 1))
    blocks = disc[2::4, 2::4].repeat(4, 0).repeat(4, 1)[:80, :90]
    blocks = np.pad(blocks, ((0, 80 - blocks.shape[0]), (0, 90 - blocks.shape[1])))
    for rough in (shifted, blocks):
        (found,) = refine(image, rough)
        wrong_before, wrong_after = (rough != disc).sum(), (found != disc).sum()
        assert wrong_before > 50
        assert wrong_after < wrong_before / 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([1e-5, 1e-2]))
def test_symmetries(seed: int, radius: int, eps: float) -> None:
    image, disc = scene(24, 30, seed)
    q = whole(image, disc, radius, eps)
    # A mask and its complement share every pixel; flips, transposition and the order of channels change nothing.
    assert np.allclose(q + whole(image, 1 - disc, radius, eps), 1, atol=1e-6, rtol=0)
    assert np.allclose(q[::-1], whole(image[::-1], disc[::-1], radius, eps), atol=1e-6, rtol=0)
    assert np.allclose(q.T, whole(image.transpose(1, 0, 2), disc.T, radius, eps), atol=1e-6, rtol=0)
    assert np.allclose(q, whole(image[:, :, ::-1], disc, radius, eps), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("radius", "colour"), [(3, 77), (MAX_RADIUS, 255)])
def test_a_flat_image_gives_two_means(radius: int, colour: int) -> None:
    """Without edges in the guide a is 0 (Eq. 19), and q the mean of the mean. Nor do the largest sums overflow."""
    _, disc = scene(200, 210, 2)
    window = {"ksize": (2 * radius + 1, 2 * radius + 1), "normalize": False, "borderType": cv2.BORDER_CONSTANT}
    count = cv2.boxFilter(np.ones(disc.shape), -1, **window)
    expected = disc.astype(np.float64)
    for _ in range(2):
        expected = cv2.boxFilter(expected, -1, **window) / count
    q = whole(np.full((200, 210, 3), colour, np.uint8), disc, radius, MIN_EPS)
    assert np.allclose(q, expected, atol=1e-7, rtol=0)


def test_full_empty_and_no_masks() -> None:
    image, disc = scene(30, 40, 5)
    full, empty = refine(image, np.ones_like(disc), np.zeros_like(disc))
    assert full.all()
    assert not empty.any()
    assert guided_refiner(GuidedOptions()).refine(image, []) == []


def test_small_masks_get_small_windows() -> None:
    options = GuidedOptions(radius=8, share=0.25)
    assert [radius_for(area, options) for area in (1, 16, 64, 400, 1024, 10**6)] == [1, 1, 2, 5, 8, 8]
    assert radius_for(1, GuidedOptions(radius=8, share=NO_SHARE)) == 8
    image, disc = scene(60, 60, 4)
    dot = np.zeros_like(disc)
    dot[10:14, 10:14] = 1
    adapted, smoothed_away = refine(image, dot)[0], refine(image, dot, share=NO_SHARE)[0]
    assert adapted.any()
    assert not smoothed_away.any()


def test_same_bytes_in_any_company_order_and_thread() -> None:
    image, disc = scene(70, 80, 6)
    random = np.random.default_rng(0)
    masks = [mask_of(disc & (random.random(disc.shape) < p), k + 1) for k, p in enumerate((0.02, 0.5, 0.9, 1.0))]
    refiner = guided_refiner(GuidedOptions())
    together = refiner.refine(image, masks)
    assert [refiner.refine(image, [mask])[0] for mask in masks] == together
    assert refiner.refine(image, masks[::-1]) == together[::-1]
    threads = cv2.getNumThreads()
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            with ThreadPoolExecutor(4) as pool:
                assert all(found == together for found in pool.map(lambda _: refiner.refine(image, masks), range(8)))
    finally:
        cv2.setNumThreads(threads)


def test_inputs_are_untouched_and_may_be_views() -> None:
    image, disc = scene(40, 40, 7)
    before = image.copy()
    (expected,) = refine(image, disc)
    assert np.array_equal(image, before)
    assert np.array_equal(refine(np.asfortranarray(image), disc)[0], expected)
    image.setflags(write=False)
    assert np.array_equal(refine(image, disc)[0], expected)


def test_what_it_says_of_itself() -> None:
    refiner = guided_refiner(GuidedOptions())
    assert (refiner.name, METHOD.supervised, refiner.weights_sha256) == ("guided", False, None)


@pytest.mark.parametrize(
    "options",
    [
        {"radius": 0},
        {"radius": MAX_RADIUS + 1},
        {"eps": 0.0},
        {"eps": float("nan")},
        {"eps": float("inf")},
        {"share": 0.0},
        {"share": float("nan")},
    ],
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(options))} .*: give a"):
        GuidedOptions(**options)  # type: ignore[arg-type]


def test_masks_of_another_size() -> None:
    image, _ = scene(20, 20, 8)
    wrong = Mask(1, 1, Rle(10, 20, rle.encode(np.ones((10, 20), np.uint8)).counts), 200, (0.0, 0.0, 20.0, 10.0))
    with pytest.raises(InputError, match="20x10"):
        guided_refiner(GuidedOptions()).refine(image, [wrong])
