"""Categories without names: masks whose vectors are alike (LightCluster's class assignment, arXiv 2311.18628; METHODS §2).

Two passes: the vectors of all masks, k-means, then the masks again with the number of their cluster, from 1; 0 stays free for what
has no label. With saved centroids one pass is enough. The paper leaves open how k-means is run; ours is by cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ovskit.core.formats.streams.centroids import Centroids
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.label.crops import CropOptions
from ovskit.core.label.mask_vectors import MaskVectors, drop_empty
from ovskit.core.label.vector_store import VectorStore
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.kmeans import assign
from ovskit.core.records import Float, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError

NAME = "masks"  # of the centroids in their file
_LARGEST_CROP, _LARGEST_CONTEXT = 4096, 10  # that a person can ask for
_STALE = ("label_score", "labels")  # keys from an earlier run with --names


def cluster_categories(count: int) -> tuple[dict[str, Any], ...]:
    """``cluster 1`` to ``cluster count``, as COCO's categories."""
    return tuple({"id": k, "name": f"cluster {k}", "supercategory": "cluster"} for k in range(1, count + 1))


def clustered_header(header: MasksHeader, count: int) -> MasksHeader:
    """The header of masks in ``count`` clusters; earlier names are dropped."""
    return replace(header, description="masks clustered by ovs-label", categories=cluster_categories(count), labels=None)


def with_clusters(masks: MaskSet, vectors: Float, centroids: Centroids) -> MaskSet:
    """The masks with ``category_id`` the number of the nearest of ``centroids``, from 1. Raises InputError if their widths differ."""
    if not masks.masks:
        return masks
    labels, _ = assign(vectors, centroids)
    return replace(masks, masks=tuple(_renamed(mask, int(k) + 1) for mask, k in zip(masks.masks, labels, strict=True)))


def _renamed(mask: Mask, category: int) -> Mask:
    return replace(mask, category_id=category, extra={key: value for key, value in mask.extra.items() if key not in _STALE})


class Collected:
    """The vectors of a first pass, and how many each image has."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._counts: list[tuple[int, int]] = []

    def collect(self, found: Iterable[MaskVectors]) -> Iterator[MaskVectors]:
        """Collect the vectors of masks as they pass."""
        for each in found:
            self._store.append(each.vectors)
            self._counts.append((each.masks.image.id, len(each.masks.masks)))
            yield each

    def rows(self, clusters: int) -> Float:
        """All vectors, (n, c) float32. Raises InputError where ``clusters`` cannot be made of them."""
        rows = self._store.rows()
        if not len(rows):
            raise InputError("there are no masks to make clusters of")
        if len(rows) < clusters:
            noun = "mask" if len(rows) == 1 else "masks"
            raise InputError(f"{clusters} clusters cannot be made of {len(rows)} {noun}: give fewer --clusters, or more images")
        return rows

    def again(self, sets: Iterable[MaskSet], done: frozenset[int] = frozenset()) -> Iterator[MaskVectors]:
        """The masks of the second pass with their vectors; without the images that the first one had to leave out and those in ``done``.

        Raises InputError if the masks are not those of the first pass.
        """
        rows, at, start = self._store.rows(), 0, 0
        for masks in map(drop_empty, sets):
            number, count = self._counts[at] if at < len(self._counts) else (None, 0)
            if masks.image.id != number:
                continue
            if count != len(masks.masks):
                break
            if number not in done:
                yield MaskVectors(masks, np.asarray(rows[start : start + count]))
            at, start = at + 1, start + count
        if at < len(self._counts):
            raise InputError("the masks changed between the two times that they are read: run the command again")


def about(spec: BackboneSpec, crop: CropOptions) -> dict[str, Any]:
    """The metadata of centroids of mask vectors."""
    return {"of": NAME, "model": spec.to_json(), "crop": crop.to_json()}


def crop_of(said: Mapping[str, Any], what: str) -> CropOptions:
    """The crops that centroids were made of, by their metadata ``said``. Raises InputError if they were not made of masks."""
    crop = said.get("crop")
    try:
        if said.get("of") != NAME or not isinstance(crop, Mapping):
            raise ValueError
        fill = crop["fill"] or (0, 0, 0)
        size, context = int(crop["size"]), float(crop["context"])
        if not (1 <= size <= _LARGEST_CROP and 0 <= context <= _LARGEST_CONTEXT):
            raise ValueError
        return CropOptions(size, context, bool(crop["masked"]), (int(fill[0]), int(fill[1]), int(fill[2])))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise InputError(f"{what}: these centroids are not of masks; make some with ovs-label --clusters K --save") from None


def spec_of(said: Mapping[str, Any], what: str) -> BackboneSpec:
    """The model of centroids, by their metadata ``said``. Raises InputError, naming the file ``what``, where it is not stated."""
    try:
        return BackboneSpec.from_json(said.get("model", {}))
    except InputError:
        raise InputError(f"{what} does not say which model its centroids are of: make new ones with ovs-label --save") from None


def check_same_encoder(said: Mapping[str, Any], model: Mapping[str, Any], what: str) -> None:
    """Raises InputError if the centroids ``what`` are of vectors of another ``model``, or of the same with other weights.

    Facet and layer make no difference to the vector of a whole image.
    """
    theirs, spec = spec_of(said, what), BackboneSpec.from_json(model)
    if (theirs.model, theirs.weights_sha256) != (spec.model, spec.weights_sha256):
        same = theirs.model == spec.model
        detail = "with other weights" if same else f"not {spec.name}"
        raise InputError(f"{what}: its centroids are of {theirs.name}'s vectors, {detail}: leave --model out, or make new ones with --save")


def check_same_crops(crop: CropOptions, *, size: int | None, context: float | None, masked: bool | None, what: str) -> None:
    """Raises UsageError if an option asks for other crops than the centroids' own."""
    asked = (("--size", size, crop.size), ("--context", context, crop.context), ("--mask-crop", masked, crop.masked))
    for option, wish, own in asked:
        if wish is not None and wish != own:
            said = f"{option} {wish}" if not isinstance(wish, bool) else option if wish else "--no-mask-crop"
            raise UsageError(f"{said}: the centroids in {what} are of crops with {own}; leave it out, or make new ones with --save")
