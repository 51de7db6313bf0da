"""Multi-crop: views lie within the photograph, show as much of it as they should, and a seed decides all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovskit.core.train.views.multi_crop import CropOptions, Crops, draw_box, draw_crops, turn_hue

SMALL = CropOptions(global_crop=32, local_crop=16, local_crops=3)


class Cache:
    """A cache of one image."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.image, np.zeros((*(side // 2 for side in self.image.shape[:2]), 0), np.uint8)


def flat(*colour: int) -> np.ndarray:
    return np.full((60, 80, 3), colour, np.uint8)


def draw(image: np.ndarray, count: int = 4, seed: int = 0, options: CropOptions = SMALL) -> Crops:
    return draw_crops(Cache(image), [0] * count, np.random.default_rng(seed), options)  # type: ignore[arg-type]


def test_shapes_and_ranges() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    found = draw(noise)
    assert (found.large.shape, found.small.shape) == ((4, 2, 3, 32, 32), (4, 3, 3, 16, 16))
    assert found.large.dtype == found.small.dtype == torch.uint8
    assert found.large.is_contiguous()
    assert len({view.numpy().tobytes() for view in found.large.flatten(0, 1)}) == 8
    assert draw(noise, options=CropOptions(32, 16, 0)).small.shape == (4, 0, 3, 16, 16)


def test_a_seed_decides_everything() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    first, again, other = draw(noise, seed=3), draw(noise, seed=3), draw(noise, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("share", [(0.4, 1.0), (0.05, 0.4), (1.0, 1.0)])
@pytest.mark.parametrize("shape", [(200, 300), (256, 256), (40, 700), (700, 40), (32, 32)])
def test_boxes_lie_within_and_show_the_share_asked_for(shape: tuple[int, int], share: tuple[float, float]) -> None:
    height, width = shape
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(height, width, rng, share) for _ in range(300)])
    x, y, w, h = boxes.T
    assert boxes.min() >= 0
    assert w.min() >= 1
    assert h.min() >= 1
    assert (x + w).max() <= width
    assert (y + h).max() <= height
    rounding = (w + h + 1) / 2 / (height * width)
    assert (w * h / (height * width) >= share[0] - rounding).all()
    assert (w * h / (height * width) <= share[1] + rounding).all()
    if shape == (256, 256) and share[0] < 1:
        areas = w * h / 256**2
        assert areas.mean() == pytest.approx(sum(share) / 2, abs=0.08)
        assert (np.maximum(w / h, h / w) < 4 / 3 * 1.03).all()
        assert 0.3 < (w > h).mean() < 0.7


def test_views_are_mirrored_half_the_time() -> None:
    ramp = np.broadcast_to(np.linspace(40, 200, 80).astype(np.uint8)[None, :, None], (60, 80, 3))
    small = draw(ramp, 80).small.flatten(0, 1).float()
    mirrored = (small[..., :4].mean((1, 2, 3)) > small[..., -4:].mean((1, 2, 3))).sum()
    assert 90 < mirrored < 150  # of 240


def test_some_views_are_grey() -> None:
    views = draw(flat(200, 60, 90), 100).small.flatten(0, 1).int()
    grey = ((views.amax(1) - views.amin(1)) <= 2).all(-1).all(-1).float().mean()
    assert 0.13 < grey < 0.28  # one fifth
    unchanged = ((views - torch.tensor([200, 60, 90]).view(3, 1, 1)).abs() <= 1).all(1).all(-1).all(-1).float().mean()
    assert 0.1 < unchanged < 0.24  # (1 − 0.8)(1 − 0.2)


def test_only_the_second_large_view_is_solarised() -> None:
    found = draw(flat(255, 255, 255), 100)
    levels = found.large.float().mean((2, 3, 4))
    assert levels[:, 0].min() > 0.55 * 255
    assert found.small.float().mean((2, 3, 4)).min() > 0.55 * 255
    assert 0.1 < (levels[:, 1] < 128).float().mean() < 0.3


def test_the_first_large_view_is_blurred_the_second_hardly_ever() -> None:
    board = np.where(np.indices((64, 64)).sum(0)[..., None] % 2, 0, 255).astype(np.uint8).repeat(3, 2)
    views = draw(board, 60, options=CropOptions(64, 16, 0, smallest_global=1.0)).large.float()
    contrast = views.std((2, 3, 4)).numpy()  # a board blurred by more than a pixel is flat
    assert np.median(contrast[:, 0]) < 10
    assert np.median(contrast[:, 1]) > 60


def test_hues_turn_and_grey_stays() -> None:
    red = np.array([[[255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(turn_hue(red, 1 / 3)[0, 0], [0, 255, 0], atol=6)
    np.testing.assert_allclose(turn_hue(red, -1 / 3)[0, 0], [0, 0, 255], atol=6)
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_allclose(turn_hue(colours, 0.0).astype(int), colours, atol=10)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(turn_hue(grey, 0.07), grey)
