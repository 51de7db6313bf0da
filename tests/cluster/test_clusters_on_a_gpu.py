"""Rooms' work on a card against the CPU's: clusters of images in batches, and the local step on crops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from ovskit.core.cluster.crop_features import CropExtractor
from ovskit.core.cluster.crops import Crop
from ovskit.core.cluster.kmeans_masks import ShapeOptions, cluster_each
from ovskit.core.cluster.streams import RootedFeatures
from ovskit.core.models.builtin.extractor import load_builtin
from ovskit.core.models.kmeans import KMeansOptions
from ovskit.core.records import FeatureMap, Image
from ovskit.core.runtime.failures import Failures
from tests.differences import between_patches

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GRIDS = [(6, 7), (6, 7), (6, 7), (7, 6), (6, 7), (5, 5), (5, 5)]


def test_clusters_of_images_are_the_same() -> None:
    """Masks and scores alike: no tolerance."""

    def record(number: int, grid: tuple[int, int]) -> RootedFeatures:
        patch = np.random.default_rng(number).normal(size=(*grid, 10)).astype(np.float16)
        return RootedFeatures("", FeatureMap(Image(number, f"{number}.jpg", 10 * grid[1], 10 * grid[0]), patch))

    records = [record(k, grid) for k, grid in enumerate(GRIDS, 1)]
    here, there = (list(cluster_each(records, KMeansOptions(3), ShapeOptions(), Failures(skip=False), 2, device)) for device in (CPU, GPU))
    assert len(here) == len(GRIDS)
    assert here == there


@pytest.mark.usefixtures("exact")
def test_crops_of_the_local_step_are_seen_alike(tmp_path: Path, measured: Callable[..., None]) -> None:
    """Twenty crops, so two passes; as for whole images (``tests/models``), cosines between patches are compared."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (12, 9, 3)).astype(np.uint8)
    Picture.fromarray(pixels).resize((180, 240), Picture.Resampling.BICUBIC).save(tmp_path / "a.png")
    image = Image(1, "a.png", 180, 240)
    corners = [(int(rng.integers(0, 120)), int(rng.integers(0, 180))) for _ in range(20)]
    crops = [Crop(x, y, x + 60, y + 60, x == 0, y == 0, False, False) for x, y in corners]
    here, there = (
        CropExtractor(load_builtin("builtin", device=device), str(tmp_path), side=64, max_pixels=10**6)(image, crops)
        for device in (CPU, GPU)
    )
    assert len(there) == len(here) == 20
    apart = [
        (between_patches(torch.from_numpy(one)[None]) - between_patches(torch.from_numpy(other)[None])).abs()
        for one, other in zip(here, there, strict=True)
    ]
    found = {"largest": max(float(one.max()) for one in apart), "mean": max(float(one.mean()) for one in apart)}
    measured(**found)
    assert found["largest"] < 0.1
    assert found["mean"] < 5e-3
