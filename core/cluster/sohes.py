"""SOHES' self-exploration (ICLR 2024, §3.1): regions of one image from its patch features, of the whole image and of crops.

Global: patches are merged by similarity, the partition is recorded as the best similarity falls below each threshold,
all partitions are pooled, NMS removes duplicates. Local: regions below a small share of the image are clustered again
in zoomed crops, whose subregions take their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovskit.core.cluster.crops import Crop, plan_crops, region_boxes, touches_border
from ovskit.core.cluster.float16 import widened
from ovskit.core.cluster.merge import merge_sequence, snapshot_steps
from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.pool import Pool, pool_regions
from ovskit.core.formats.streams.soft_margin import KEY as SOFT
from ovskit.core.formats.streams.soft_margin import SoftGrid
from ovskit.core.masks.grid import edges, nested_rles
from ovskit.core.masks.nms import suppress
from ovskit.core.masks.runs import run_table
from ovskit.core.records import FeatureMap, Float, Int32, Mask, MaskSet, Rle
from ovskit.core.runtime.errors import InputError

CropFeatures = Callable[[Sequence[Crop]], Sequence[Float]]


@dataclass(frozen=True, slots=True)
class Regions:
    """Masks of one pool with what their annotations say; parallel sequences, but for the ``grid`` that all are cut from."""

    rles: list[Rle]
    areas: np.ndarray
    bboxes: np.ndarray
    scores: Float
    levels: Int32
    local: bool
    grid: SoftGrid


def cluster_regions(features: FeatureMap, options: SohesOptions, *, frame: tuple[int, int], crop_features: CropFeatures | None) -> MaskSet:
    """Masks of one image, larger first, each with ``score``, ``threshold`` (or ``count``) and ``source``.

    ``frame`` (height, width) is the size in pixels that the image had when its features were extracted.
    ``crop_features`` gives the (h, w, c) features of crops of the native image, in order; None leaves the local step out,
    and small regions stay. Raises InputError if a feature is not finite.
    """
    image = features.image
    size = (image.height, image.width)
    try:
        pool = _pool(features.patch, options)
    except InputError as error:
        raise InputError(f"{image.file_name}: {error}") from None
    if crop_features is None:
        return _mask_set(features, [_regions(pool, None, size, options, local=False)], options)
    grid = (features.patch.shape[0], features.patch.shape[1])
    # In patches, since every patch stands for the same share of the image whatever its aspect.
    is_small = pool.patches < options.small * grid[0] * grid[1]
    regions = [_regions(_select(pool, ~is_small), None, size, options, local=False)]
    candidates = _select(pool, is_small)
    boxes = region_boxes(candidates.partitions, candidates.level, candidates.label)
    # Larger candidates first: their crops hold the smaller ones beside them, so fewer are needed.
    boxes = boxes[np.argsort(-candidates.patches, kind="stable")]
    crops = plan_crops(boxes, grid, frame, size, context=options.context, smallest=options.min_crop, share=options.share)
    if crops:
        for crop, patch in zip(crops, crop_features(crops), strict=True):
            regions.append(_subregions(patch, crop, size, grid[0] * grid[1], options))
    return _mask_set(features, regions, options)


def _pool(patch: Float, options: SohesOptions) -> Pool:
    height, width, _ = patch.shape
    buffer = widened(patch)
    again = 0
    if options.counts is None:
        sequence = merge_sequence(buffer, stop_similarity=options.thresholds[-1], connectivity=8 if options.connectivity == 8 else 4)
        steps = snapshot_steps(sequence, np.asarray(options.thresholds, np.float64))
    else:
        counts = np.minimum(np.asarray(options.counts), height * width)
        sequence = merge_sequence(
            buffer, stop_similarity=None, stop_count=int(counts[-1]), connectivity=8 if options.connectivity == 8 else 4
        )
        steps = np.minimum(height * width - counts, len(sequence.first)).astype(np.int32)
        again = max(0, int((counts == height * width).sum()) - 1)  # more regions than there are patches: all of them single patches
    return pool_regions(
        sequence, steps, patch, buffer, nms=options.nms, min_patches=options.min_patches, cosine=options.score == "cosine", again=again
    )


def _select(pool: Pool, keep: np.ndarray) -> Pool:
    return replace(pool, level=pool.level[keep], label=pool.label[keep], patches=pool.patches[keep], score=pool.score[keep])


def _subregions(patch: Float, crop: Crop, size: tuple[int, int], cells: int, options: SohesOptions) -> Regions:
    whole = size[0] * size[1] / cells  # pixels of the image to a patch of the whole image, and to one of the crop
    close = (crop.bottom - crop.top) * (crop.right - crop.left) / (patch.shape[0] * patch.shape[1])
    smallest = max(1, math.ceil(options.min_local * whole / close))
    # By thresholds also under ``counts``: a crop shows an unknown part of what the whole image shows.
    pool = _pool(patch, replace(options, min_patches=smallest, counts=None))
    boxes = region_boxes(pool.partitions, pool.level, pool.label)
    inside = ~touches_border(boxes, (patch.shape[0], patch.shape[1]), crop)
    return _regions(_select(pool, inside), crop, size, options, local=True)


def _regions(pool: Pool, crop: Crop | None, size: tuple[int, int], options: SohesOptions, *, local: bool) -> Regions:
    """A pool's masks in native pixels: patches upscaled to the image, or to the crop's box of it, by nearest neighbour."""
    _, rows, cols = pool.partitions.shape
    top, left, bottom, right = (0, 0, *size) if crop is None else (crop.top, crop.left, crop.bottom, crop.right)
    row_edges = edges(rows, top, bottom, size[0])
    col_edges = edges(cols, left, right, size[1])
    masks = nested_rles(pool.partitions, np.stack([pool.level, pool.label], axis=1), row_edges, col_edges, *size)
    score = pool.score
    if options.score == "persistence":
        score = (score * np.sqrt(masks.areas / (size[0] * size[1]))).astype(np.float32)
    grid = SoftGrid((rows, cols), None if crop is None else (top, left, bottom, right))
    return Regions(masks.rles, masks.areas, masks.bboxes, score, pool.level, local, grid)


def _mask_set(features: FeatureMap, found: Sequence[Regions], options: SohesOptions) -> MaskSet:
    """All regions of an image as one NMS'd, numbered set, larger first; at equal area global before local, then as found."""
    areas = np.concatenate([regions.areas for regions in found])
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0]  # an image smaller than its patch grid has patches without a pixel
    rles = [rle for regions in found for rle in regions.rles]
    if len(found) > 1 and options.nms < 1 and len(order):
        order = order[suppress(run_table([rles[k] for k in order]), options.nms)]
    owner = np.concatenate([np.full(len(regions.rles), k) for k, regions in enumerate(found)])
    first = np.cumsum([0, *(len(regions.rles) for regions in found)])
    masks = []
    for number, k in enumerate(order.tolist(), 1):
        regions = found[owner[k]]
        own = k - int(first[owner[k]])
        level = int(regions.levels[own])
        by_count = options.counts is not None and not regions.local
        recorded = {"count": options.counts[level]} if by_count and options.counts else {"threshold": options.thresholds[level]}
        soft = {SOFT: regions.grid.to_json()} if options.soft else {}
        masks.append(
            Mask(
                id=number,
                image_id=features.image.id,
                rle=rles[k],
                area=int(areas[k]),
                bbox=tuple(regions.bboxes[own].tolist()),
                score=round(float(regions.scores[own]), 6),
                extra={**recorded, "source": "local" if regions.local else "global", **soft},
            )
        )
    return MaskSet(features.image, tuple(masks))
