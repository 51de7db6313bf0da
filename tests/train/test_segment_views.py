"""Views: both see the same places where their segments say so, and a seed decides all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovskit.core.models.builtin.network import MEAN, STD
from ovskit.core.train.views.segment_views import SegmentViewOptions, draw_segment_views

PLAIN = SegmentViewOptions(crop=64, colour=0.0, blur=0.0)


class Painted:
    """A cache of one image whose colour tells the segment: 20 × 20 tiles, the green channel is 10 times the label."""

    def __init__(self) -> None:
        y, x = np.mgrid[:200, :240] // 40
        self.labels = (y * 6 + x).astype(np.uint8)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.full((200, 240, 3), 100, np.uint8)
        image[..., 1] = self.labels * 8
        return image, np.stack([self.labels[1::2, 1::2], np.full((100, 120), 7, np.uint8)], -1)


def bytes_of(images: torch.Tensor) -> np.ndarray:
    pixels = images * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    return (pixels * 255).numpy()


def draw(seed: int, options: SegmentViewOptions = PLAIN, pairs: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_segment_views(Painted(), [0] * pairs, np.random.default_rng(seed), options)  # type: ignore[arg-type,return-value]


def test_segments_lie_where_the_pixels_are() -> None:
    images, labels = draw(0)
    assert images.shape == (12, 3, 64, 64)
    assert labels.shape == (12, 2, 16, 16)
    assert labels.dtype == torch.int64
    green = bytes_of(images)[:, 1].reshape(12, 16, 4, 16, 4)
    inside = (green.max(axis=(2, 4)) - green.min(axis=(2, 4))) < 1  # places that no border of a tile crosses
    assert inside.mean() > 0.4
    np.testing.assert_allclose(green.mean(axis=(2, 4))[inside], 8 * labels[:, 0].numpy()[inside], atol=1)
    assert (labels[:, 1] == 7).all()


def test_views_of_a_pair_overlap_and_are_mirrored_half_the_time() -> None:
    shared, mirrored = [], 0
    for seed in range(20):
        _, labels = draw(seed)
        shared += [len(set(labels[k, 0].unique().tolist()) & set(labels[k + 6, 0].unique().tolist())) for k in range(6)]
        columns = labels[:, 0, 8].float()
        mirrored += int((columns[:, 0] > columns[:, -1]).sum())
    assert min(shared) >= 1
    assert 80 < mirrored < 160  # of 240


def test_a_seed_decides_everything() -> None:
    options = SegmentViewOptions(crop=64)
    first, again, other = draw(3, options), draw(3, options), draw(4, options)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_colours_change_within_bounds_and_only_if_asked() -> None:
    plain, _ = draw(5)
    changed, _ = draw(5, SegmentViewOptions(crop=64, colour=1.0, blur=0.0))
    red = bytes_of(plain)[:, 0]
    assert np.abs(red - 100).max() < 1
    assert np.abs(bytes_of(changed)[:, 0] - 100).max() > 10
    assert bytes_of(changed).min() > -0.5
    assert bytes_of(changed).max() < 255.5


@pytest.mark.parametrize("shape", [(33, 400), (400, 33), (32, 32)])
def test_long_and_small_photographs(shape: tuple[int, int]) -> None:
    class Long:
        def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((*shape, 3), np.uint8), np.zeros((shape[0] // 2, shape[1] // 2, 1), np.uint8)

    images, labels = draw_segment_views(Long(), [0, 0], np.random.default_rng(0), PLAIN)  # type: ignore[arg-type]
    assert images.shape == (4, 3, 64, 64)
    assert labels.shape == (4, 1, 16, 16)
