"""Masks by k-means of patch features: clusters of one image (S-Seg's pseudo-masks), of a few, or of all images.

S-Seg (arXiv 2401.12217) takes K = 8 clusters of each image's patches. Every mask is a whole cluster, or with ``components`` a
connected piece of one. Pixels take the cluster of the patch that they lie in. A score is the mean margin of a mask's patches: how much
nearer they are to their own centroid than to the next [choice].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ovskit.core.cluster.patch_sample import PatchSample, unit_rows
from ovskit.core.cluster.streams import RootedFeatures
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.soft_margin import KEY as SOFT
from ovskit.core.formats.streams.soft_margin import SoftGrid
from ovskit.core.masks.grid import edges, grid_rles
from ovskit.core.models.kmeans import Centroids, KMeansOptions, assign, fit, fit_each
from ovskit.core.records import FeatureMap, Image, Int32, Mask, MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map

Float32 = npt.NDArray[np.float32]
# Labels and margins (h, w) of an image, or why there are none.
Clustered = tuple[Int32, Float32] | InputError

CPU = torch.device("cpu")
_BATCH_BYTES = {"cuda": 256 << 20}  # elsewhere images are clustered one at a time, by several workers


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """``components``: one mask for each connected piece of a cluster instead of one for the cluster; of ``min_patches`` at least, by
    ``connectivity`` 4 or 8. ``soft``: masks say which grid they were cut from, for a CRF to start from it."""

    components: bool = False
    min_patches: int = 1
    connectivity: Literal[4, 8] = 8
    soft: bool = True


def masks_of_labels(image: Image, labels: Int32, margin: Float32, shape: ShapeOptions, *, categories: bool) -> MaskSet:
    """Masks of a grid of cluster numbers (h, w), in order of the clusters, then of the pieces.

    ``categories``: cluster k is category k + 1, since it means the same in every image; else all are category 1. Every mask carries its
    ``cluster``.
    """
    height, width = labels.shape
    grid, clusters = _pieces(labels, shape.connectivity) if shape.components else (labels, np.arange(int(labels.max()) + 1))
    sizes = np.bincount(grid.ravel(), minlength=len(clusters))
    means = np.bincount(grid.ravel(), margin.ravel().astype(np.float64), minlength=len(clusters)) / np.maximum(1, sizes)
    wanted = np.flatnonzero(sizes >= max(1, shape.min_patches))
    rows, columns = edges(height, 0, image.height, image.height), edges(width, 0, image.width, image.width)
    found = grid_rles(grid.astype(np.int32), wanted, rows, columns, image.height, image.width)
    soft = {SOFT: SoftGrid((height, width)).to_json()} if shape.soft else {}
    masks: list[Mask] = []
    for k, piece in enumerate(wanted.tolist()):
        if not found.areas[k]:  # between the pixels of a small image
            continue
        cluster = int(clusters[piece])
        box = found.bboxes[k].tolist()
        masks.append(
            Mask(
                len(masks) + 1, image.id, found.rles[k], int(found.areas[k]), (box[0], box[1], box[2], box[3]),
                cluster + 1 if categories else 1, score=float(np.clip(means[piece], 0, 1)), extra={"cluster": cluster, **soft},
            )
        )  # fmt: skip
    return MaskSet(image, tuple(masks))


def cluster_each(
    records: Iterable[RootedFeatures],
    options: KMeansOptions,
    shape: ShapeOptions,
    failures: Failures,
    workers: int,
    device: torch.device = CPU,
) -> Iterator[MaskSet]:
    """Clusters of every image by itself, in order, whatever the number of ``workers`` and the ``device``.

    A GPU gets images of one size many at a time; so many are in memory.
    """
    batches = _batches_of_one_grid(records, _BATCH_BYTES.get(device.type, 0))
    return _masks(batches, lambda batch: _each_of(batch, options, device), shape, failures, workers, categories=False)


def cluster_together(
    records: Iterable[RootedFeatures],
    size: int,
    options: KMeansOptions,
    shape: ShapeOptions,
    failures: Failures,
    workers: int,
    device: torch.device = CPU,
) -> Iterator[MaskSet]:
    """Clusters of ``size`` images at a time, in order of the stream; only these are in memory. What a cluster is differs from one batch to
    the next."""
    batch: list[RootedFeatures] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield from _together(batch, options, shape, failures, workers, device)
            batch = []
    if batch:
        yield from _together(batch, options, shape, failures, workers, device)


def cluster_by(
    records: Iterable[RootedFeatures],
    centroids: Centroids,
    shape: ShapeOptions,
    failures: Failures,
    workers: int,
    device: torch.device = CPU,
) -> Iterator[MaskSet]:
    """The nearest of ``centroids`` for every patch, in order of the images; a cluster is one category for all of them."""
    batches = ([record] for record in records)
    return _masks(batches, lambda batch: [_nearest(one, centroids, device) for one in batch], shape, failures, workers, categories=True)


def fit_dataset(records: Iterable[RootedFeatures], options: KMeansOptions, device: torch.device = CPU) -> Centroids:
    """Centroids of a sample of all images' patches, ``options.max_points`` of them. Raises InputError if they are too few."""
    sample = PatchSample(options.max_points, options.seed, scaled=options.metric == "cosine")
    for record in records:
        sample.add(record.features)
    if not len(sample):
        raise InputError("no image has features that can be clustered")
    return fit(sample.rows(sample.images()), options, device=device)


def _together(
    batch: list[RootedFeatures], options: KMeansOptions, shape: ShapeOptions, failures: Failures, workers: int, device: torch.device
) -> Iterator[MaskSet]:
    return cluster_by(batch, fit_dataset(batch, options, device), shape, failures, workers, device)


def _batches_of_one_grid(records: Iterable[RootedFeatures], most: int) -> Iterator[list[RootedFeatures]]:
    """Images in their order, those of one grid together as long as their patches have at most ``most`` bytes as float32."""
    batch: list[RootedFeatures] = []
    for record in records:
        patch = record.features.patch
        if batch and (patch.shape != batch[0].features.patch.shape or 4 * patch.size * (len(batch) + 1) > most):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def _each_of(batch: Sequence[FeatureMap], options: KMeansOptions, device: torch.device) -> list[Clustered]:
    """The clusters of each image of a batch, all of one grid."""
    height, width, _ = batch[0].patch.shape
    if options.k > height * width:
        return [
            InputError(f"{show_path(one.image.file_name)} has {height * width} patches, too few for {options.k} clusters (-k)")
            for one in batch
        ]
    rows = np.stack([_rows(one, options.metric) for one in batch])
    try:
        labels, centroids = fit_each(torch.from_numpy(rows).to(device), options, [options.seed + one.image.id for one in batch])
    except InputError as error:
        if len(batch) == 1:
            return [InputError(f"{show_path(batch[0].image.file_name)}: {error}")]
        return [found for one in batch for found in _each_of([one], options, device)]  # which one it is
    clustered: list[Clustered] = []
    for own, label, centroid in zip(rows, labels.cpu().numpy(), centroids.cpu().numpy(), strict=True):
        _, margin = assign(own, Centroids(centroid, options.metric, 0.0, np.bincount(label, minlength=options.k)), device=device)
        clustered.append((label.reshape(height, width).astype(np.int32), margin.reshape(height, width)))
    return clustered


def _nearest(features: FeatureMap, centroids: Centroids, device: torch.device) -> Clustered:
    height, width, channels = features.patch.shape
    if channels != centroids.rows.shape[1]:
        return InputError(f"{show_path(features.image.file_name)} has {channels} channels, the centroids {centroids.rows.shape[1]}")
    try:
        labels, margin = assign(_rows(features, centroids.metric), centroids, device=device)
    except InputError as error:
        return InputError(f"{show_path(features.image.file_name)}: {error}")
    return labels.reshape(height, width), margin.reshape(height, width)


def _rows(features: FeatureMap, metric: str) -> Float32:
    rows = features.patch.reshape(-1, features.patch.shape[2])
    return unit_rows(rows) if metric == "cosine" else rows.astype(np.float32)


def _pieces(labels: Int32, connectivity: int) -> tuple[Int32, npt.NDArray[np.int64]]:
    """A grid of connected pieces, numbered from 0 cluster by cluster, and the cluster of each."""
    grid = np.empty_like(labels)
    clusters: list[int] = []
    for cluster in np.unique(labels).tolist():
        inside = labels == cluster
        count, found = cv2.connectedComponents(inside.astype(np.uint8), connectivity=connectivity)
        grid[inside] = found[inside] - 1 + len(clusters)
        clusters += [cluster] * (count - 1)
    return grid, np.array(clusters, np.int64)


def _masks(
    batches: Iterable[list[RootedFeatures]],
    cluster: Callable[[list[FeatureMap]], list[Clustered]],
    shape: ShapeOptions,
    failures: Failures,
    workers: int,
    *,
    categories: bool,
) -> Iterator[MaskSet]:
    """Masks of what ``cluster`` says of every image of a batch, labels and margins; what cannot be used goes to ``failures``."""

    def work(batch: list[RootedFeatures]) -> list[MaskSet | InputError]:
        features = [record.features for record in batch]
        return [
            found if isinstance(found, InputError) else masks_of_labels(one.image, *found, shape, categories=categories)
            for one, found in zip(features, cluster(features), strict=True)
        ]

    for found in (one for batch in ordered_map(work, batches, workers) for one in batch):
        if isinstance(found, InputError):
            failures.handle(found)
        else:
            yield found
