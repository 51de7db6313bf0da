"""Clusters of images as masks: the same one image at a time and many at a time, and images that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovskit.core.cluster import kmeans_masks
from ovskit.core.cluster.kmeans_masks import CPU, ShapeOptions, cluster_by, cluster_each, fit_dataset
from ovskit.core.cluster.light_stream import Margined, fit_light, light_masks
from ovskit.core.cluster.options import LightOptions
from ovskit.core.cluster.streams import RootedFeatures
from ovskit.core.models.kmeans import KMeansOptions
from ovskit.core.records import FeatureMap, Image, MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures

GRIDS = [(6, 7), (6, 7), (6, 7), (7, 6), (6, 7), (5, 5), (5, 5)]


def record(number: int, grid: tuple[int, int], value: float | None = None) -> RootedFeatures:
    patch = np.random.default_rng(number).normal(size=(*grid, 10)).astype(np.float16)
    if value is not None:
        patch[0, 0, 0] = value
    return RootedFeatures("", FeatureMap(Image(number, f"{number}.jpg", 10 * grid[1], 10 * grid[0]), patch))


def clustered(records: list[RootedFeatures], workers: int = 1, skip: bool = False, k: int = 3) -> list[MaskSet]:
    return list(cluster_each(records, KMeansOptions(k), ShapeOptions(), Failures(skip=skip), workers))


@pytest.mark.parametrize("most", [4 * 6 * 7 * 10, 3 * 4 * 6 * 7 * 10, 1 << 30])
@pytest.mark.parametrize("workers", [1, 3])
def test_images_in_lots_are_what_they_are_alone(monkeypatch: pytest.MonkeyPatch, most: int, workers: int) -> None:
    records = [record(k, grid) for k, grid in enumerate(GRIDS, 1)]
    alone = clustered(records)
    assert [masks.image.id for masks in alone] == list(range(1, 8))
    calls = []

    def counted(maps: torch.Tensor, *rest: object) -> object:
        calls.append(len(maps))
        return fit_each(maps, *rest)  # type: ignore[arg-type]

    fit_each = kmeans_masks.fit_each
    monkeypatch.setattr(kmeans_masks, "fit_each", counted)
    monkeypatch.setitem(kmeans_masks._BATCH_BYTES, CPU.type, most)
    assert clustered(records, workers) == alone
    assert sorted(calls) == sorted({4 * 420: [1] * 7, 3 * 4 * 420: [3, 1, 1, 2], 1 << 30: [3, 1, 1, 2]}[most])


def test_one_bad_image_of_a_lot_is_named_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kmeans_masks._BATCH_BYTES, CPU.type, 1 << 30)
    records = [record(1, (6, 7)), record(2, (6, 7), np.nan), record(3, (6, 7)), record(4, (1, 2)), record(5, (6, 7))]
    with pytest.raises(InputError, match=r"2\.jpg.*NaN"):
        clustered(records)
    with pytest.raises(InputError, match=r"4\.jpg has 2 patches, too few for 3 clusters"):
        clustered(records[2:])
    found = clustered(records, skip=True)
    assert [masks.image.id for masks in found] == [1, 3, 5]
    assert found == clustered([records[0], records[2], records[4]])


@pytest.mark.parametrize("light", [False, True])
def test_an_image_of_other_channels_is_named(light: bool) -> None:
    records = [with_cls(k, (6, 7)) for k in range(1, 6)]
    patch = np.ones((6, 7, 9), np.float16)
    odd = [*records, RootedFeatures("", FeatureMap(Image(6, "6.jpg", 70, 60), patch, np.ones(10, np.float16)))]

    def masks(some: list[RootedFeatures], failures: Failures) -> list[MaskSet]:
        options = KMeansOptions(2)
        if light:
            levels = fit_light(some, LightOptions(superclasses=2), options)
            return list(light_masks(Margined(some, levels, LightOptions(), options, failures, 1).margins(), "final", LightOptions(), 1))
        return list(cluster_by(some, fit_dataset(some, options), ShapeOptions(), failures, 1))

    with pytest.raises(InputError, match=r"6\.jpg has 9 channels, the centroids 10"):
        masks(odd, Failures(skip=False))
    failures = Failures(skip=True)
    assert masks(odd, failures) == masks(records, failures)
    assert failures.count == 1


def with_cls(number: int, grid: tuple[int, int]) -> RootedFeatures:
    one = record(number, grid).features
    return RootedFeatures("", FeatureMap(one.image, one.patch, np.random.default_rng(number).normal(size=10).astype(np.float16)))
