"""The whole method on one image, against dense masks."""

from collections.abc import Sequence

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovskit.core.cluster.crops import Crop
from ovskit.core.cluster.merge import merge_sequence, partition, snapshot_steps
from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.formats.streams.soft_margin import SoftGrid, read_soft_margin
from ovskit.core.records import FeatureMap, Image, MaskSet
from ovskit.core.runtime.errors import InputError


def voronoi(seed: int, h: int = 16, w: int = 16, c: int = 8, cells: int = 9, noise: float = 0.5) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 1, (cells, 2)) * (h, w)
    place = np.stack(np.mgrid[:h, :w], -1)[:, :, None]
    nearest = ((place - centres) ** 2).sum(-1).argmin(-1)
    return (random.normal(size=(cells, c))[nearest] + noise * random.normal(size=(h, w, c))).astype(np.float16)


def dense(masks: MaskSet) -> list[np.ndarray]:
    return [coco_mask.decode({"size": [m.rle.height, m.rle.width], "counts": m.rle.counts}).astype(bool) for m in masks.masks]


def run(features: FeatureMap, crop_features=None, **options) -> MaskSet:
    grid = features.patch.shape
    return cluster_regions(features, SohesOptions(**options), frame=(grid[0] * 8, grid[1] * 8), crop_features=crop_features)


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (30, 50), (5, 7)])
def test_without_nms_the_masks_are_the_partitions_upscaled(size: tuple[int, int]) -> None:
    patch = voronoi(1)
    masks = run(FeatureMap(Image(3, "a", size[1], size[0]), patch), nms=1.0, min_patches=1)
    sequence = merge_sequence(patch.astype(np.float32), stop_similarity=0.1)
    thresholds = SohesOptions().thresholds
    rows = ((np.arange(size[0]) + 0.5) / size[0] * 16).astype(int)
    cols = ((np.arange(size[1]) + 0.5) / size[1] * 16).astype(int)
    expected: dict[bytes, float] = {}
    for threshold, step in zip(thresholds, snapshot_steps(sequence, np.array(thresholds)), strict=True):
        labels = partition(sequence, int(step))
        for label in np.unique(labels):
            mask = (labels == label)[rows][:, cols]
            if mask.any():
                expected.setdefault(mask.tobytes(), threshold)
    found = {m.tobytes(): own.extra["threshold"] for m, own in zip(dense(masks), masks.masks, strict=True)}
    if min(size) >= 16:
        assert found == expected
        assert len(masks.masks) == len(expected)
    else:  # regions that differ by patches without a pixel become the same mask
        assert set(found) == set(expected)


def test_annotations_say_what_they_are() -> None:
    masks = run(FeatureMap(Image(3, "a", 100, 80), voronoi(2)))
    assert [m.id for m in masks.masks] == list(range(1, len(masks.masks) + 1))
    areas = [m.area for m in masks.masks]
    assert areas == sorted(areas, reverse=True)
    for mask, pixels in zip(masks.masks, dense(masks), strict=True):
        assert mask.area == pixels.sum()
        assert tuple(coco_mask.toBbox({"size": [80, 100], "counts": mask.rle.counts})) == mask.bbox
        assert mask.score is not None
        partitions = mask.score / (mask.area / 8000) ** 0.5 * len(SohesOptions().thresholds)
        assert partitions == pytest.approx(round(partitions), abs=1e-2)
        assert 1 <= round(partitions) <= 6
        assert mask.extra["source"] == "global"
        assert mask.extra["threshold"] in SohesOptions().thresholds


def test_the_patches_of_a_mask_are_read_back_from_its_grid() -> None:
    features = FeatureMap(Image(3, "a", 100, 80), voronoi(2))
    masks = run(features)
    for mask, pixels in zip(masks.masks, dense(masks), strict=True):
        grid = read_soft_margin(mask.extra, "", 80, 100)
        assert isinstance(grid, SoftGrid)
        cells = grid.margin_of(np.ascontiguousarray(pixels, np.uint8), (0, 0, 80, 100), 80, 100).values
        assert set(np.unique(cells)) == {-1, 1}
        rows, cols = (((np.arange(side) + 0.5) / side * 16).astype(int) for side in (80, 100))
        np.testing.assert_array_equal((cells > 0)[rows][:, cols], pixels)
    bare = run(features, soft=False)
    assert [m.rle for m in bare.masks] == [m.rle for m in masks.masks]
    assert not any("soft" in m.extra for m in bare.masks)


def test_no_two_masks_overlap_more_than_nms_allows() -> None:
    for nms in (0.5, 0.9):
        masks = dense(run(FeatureMap(Image(3, "a", 128, 128), voronoi(3)), nms=nms, min_patches=1))
        for i, a in enumerate(masks):
            for b in masks[:i]:
                assert (a & b).sum() / (a | b).sum() <= nms


def test_counts_record_partitions_of_that_many_regions() -> None:
    masks = run(FeatureMap(Image(1, "a", 128, 128), voronoi(4)), counts=(40, 10, 3), nms=1.0, min_patches=1)
    by_count = {}
    for mask, pixels in zip(masks.masks, dense(masks), strict=True):
        by_count.setdefault(mask.extra["count"], []).append(pixels)
    assert len(by_count[40]) == 40
    assert (sum(m.astype(int) for m in by_count[40]) == 1).all()
    assert set(by_count) == {40, 10, 3}


def closer_of(patch: np.ndarray, seen: list[Crop]):
    def crop_features(crops: Sequence[Crop]) -> list[np.ndarray]:
        seen.extend(crops)
        return [patch for _ in crops]

    return crop_features


def test_small_regions_are_replaced_by_what_a_crop_shows() -> None:
    # one odd block of 2 × 2 patches on a plain 64 × 64 grid: below 1/1024 of 4096 = 4 patches it is not, below 1/512 it is
    patch = np.zeros((64, 64, 2), np.float16)
    patch[..., 0] = 1
    patch[30:32, 40:42] = (0, 1)
    crop_patch = np.zeros((32, 32, 2), np.float16)
    crop_patch[..., 0] = 1
    crop_patch[8:20, 10:26] = (0, 1)
    crop_patch[25:32, :4] = (0, 1)  # touches the border: discarded
    seen: list[Crop] = []
    features = FeatureMap(Image(1, "a", 512, 512), patch)
    masks = run(features, closer_of(crop_patch, seen), small=1 / 512, min_patches=1)
    (crop,) = seen
    assert (crop.top, crop.bottom, crop.left, crop.right) == (216, 280, 296, 360)  # 64 px around the block's centre (248, 328)
    local = [m for m in masks.masks if m.extra["source"] == "local"]
    assert len(local) == 1
    assert local[0].extra["soft"] == {"grid": [32, 32], "box": [296, 216, 64, 64]}
    assert {str(m.extra["soft"]) for m in masks.masks if m.extra["source"] == "global"} == {"{'grid': [64, 64]}"}
    assert local[0].bbox == (296 + 20.0, 216 + 16.0, 32.0, 24.0)
    assert {m.extra["source"] for m in masks.masks} == {"global", "local"}
    assert not any(m.area == 16 * 16 for m in masks.masks)
    without = run(features, None, small=1 / 512, min_patches=1)
    assert any(m.area == 16 * 16 for m in without.masks)


def test_a_crop_at_the_images_border_keeps_regions_that_touch_it() -> None:
    patch = np.zeros((64, 64, 2), np.float16)
    patch[..., 0] = 1
    patch[0:2, 40:42] = (0, 1)
    crop_patch = np.zeros((32, 32, 2), np.float16)
    crop_patch[..., 0] = 1
    crop_patch[0:8, 10:26] = (0, 1)
    masks = run(FeatureMap(Image(1, "a", 512, 512), patch), closer_of(crop_patch, []), small=1 / 512, min_patches=1)
    assert [m.bbox[1] for m in masks.masks if m.extra["source"] == "local"] == [0.0]


def test_a_subregion_like_a_global_one_is_suppressed() -> None:
    patch = np.zeros((64, 64, 2), np.float16)
    patch[..., 0] = 1
    patch[30:33, 40:43] = (0, 1)  # 9 patches: large enough to stay
    patch[40:42, 40:42] = (0, -1)  # 4 patches: looked at again
    crop_patch = np.zeros((32, 32, 2), np.float16)
    crop_patch[..., 0] = 1
    seen: list[Crop] = []
    options = {"small": 8 / 4096, "min_patches": 1}

    def crop_features(crops: Sequence[Crop]) -> list[np.ndarray]:
        seen.extend(crops)
        (crop,) = crops
        # what the crop shows is exactly the 3 × 3 block, found again
        scale = 32 / (crop.right - crop.left)
        rows = slice(round((240 - crop.top) * scale), round((264 - crop.top) * scale))
        cols = slice(round((320 - crop.left) * scale), round((344 - crop.left) * scale))
        crop_patch[rows, cols] = (0, 1)
        return [crop_patch]

    masks = run(FeatureMap(Image(1, "a", 512, 512), patch), crop_features, context=12.0, **options)
    assert seen
    blocks = [m for m in masks.masks if m.bbox == (320.0, 240.0, 24.0, 24.0)]
    assert [m.extra["source"] for m in blocks] == ["global"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_by_name(value: float) -> None:
    patch = voronoi(5)
    patch[3, 3, 3] = value
    with pytest.raises(InputError, match=r"bad\.jpg"):
        run(FeatureMap(Image(1, "bad.jpg", 64, 64), patch))


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (9, 1)])
def test_degenerate_grids(grid: tuple[int, int]) -> None:
    patch = np.ones((*grid, 3), np.float16)
    masks = run(FeatureMap(Image(1, "a", 40, 30), patch), min_patches=1)
    assert [m.area for m in masks.masks] == [1200]


def test_counts_beyond_the_number_of_patches_change_no_score() -> None:
    features = FeatureMap(Image(3, "a", 128, 128), voronoi(3))
    height, width, _ = features.patch.shape
    few = run(features, counts=(height * width, 40, 20, 10, 5), min_patches=1)
    many = run(features, counts=(height * width + 700, height * width + 10, height * width, 40, 20, 10, 5), min_patches=1)
    assert [(m.rle, m.score) for m in few.masks] == [(m.rle, m.score) for m in many.masks]
