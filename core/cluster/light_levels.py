"""LightCluster's centroids: two for the data set, two for each superclass of images, fitted on a sample of all patches.

Which cluster is the foreground is known when all images have been asked (``Votes``); from then on it is row 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ovskit.core.cluster.lightcluster import Margins, foreground_of_image
from ovskit.core.cluster.options import Side, Sign
from ovskit.core.cluster.patch_sample import PatchSample, unit_rows
from ovskit.core.formats.paths import show_path
from ovskit.core.models.kmeans import Centroids, KMeansOptions, assign, fit, fit_each, scores
from ovskit.core.records import FeatureMap
from ovskit.core.runtime.errors import InputError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Levels:
    """Centroids of the ``dataset`` (2, c), of each superclass (``categories``), and of the CLS vectors, None for one superclass alone."""

    dataset: Centroids
    categories: tuple[Centroids, ...]
    superclasses: Centroids | None

    def category_of(self, features: FeatureMap) -> int:
        """The superclass of an image. Raises InputError if it has no CLS vector, or another's."""
        if self.superclasses is None:
            return 0
        if features.cls is None:
            raise InputError(f"{show_path(features.image.file_name)}: has no CLS vector to tell its superclass by: extract with --cls")
        if len(features.cls) != self.superclasses.rows.shape[1]:
            raise InputError(f"{show_path(features.image.file_name)}: its CLS vector is not as long as the others'")
        return int(assign(unit_rows(features.cls[None]), self.superclasses)[0][0])

    def named(self) -> dict[str, Centroids]:
        """As a centroids file has them."""
        found = {"dataset": self.dataset, **{f"category-{k}": one for k, one in enumerate(self.categories)}}
        return found if self.superclasses is None else {**found, "superclasses": self.superclasses}

    @classmethod
    def of_named(cls, named: Mapping[str, Centroids], what: str) -> Levels:
        """The inverse of ``named``. Raises InputError, naming the file ``what``, if they are of another method."""
        try:
            categories = tuple(named[f"category-{k}"] for k in range(sum(name.startswith("category-") for name in named)))
            found = cls(named["dataset"], categories, named.get("superclasses"))
        except KeyError as error:
            raise InputError(f"{what}: has no centroids {error}: they are not of --method lightcluster") from None
        if not categories or len(categories) != (1 if found.superclasses is None else len(found.superclasses.rows)):
            raise InputError(f"{what}: centroids of {len(categories)} superclasses, which do not fit the rest of the file")
        return found


def fit_levels(sample: PatchSample, superclasses: int, options: KMeansOptions, device: torch.device | None = None) -> Levels:
    """Centroids of all levels but the image's. A superclass of too few patches has those of the data set.

    Raises InputError if there are fewer images than superclasses, or they have no CLS vectors though there are several.
    """
    two = replace(options, k=2)
    images = sample.images()
    dataset = fit(sample.rows(images), two, device=device)
    if superclasses == 1:
        return Levels(dataset, (dataset,), None)
    if len(images) < superclasses:
        raise InputError(
            f"{superclasses} superclasses of {len(images)} images: there must be as many images at least (--set superclasses=N)"
        )
    vectors = sample.cls()
    of_images = fit(vectors, replace(options, k=superclasses), device=device)
    labels, _ = assign(vectors, of_images)
    categories = []
    for k in range(superclasses):
        members = [number for number, label in zip(images, labels.tolist(), strict=True) if label == k]
        rows = sample.rows(members) if members else np.zeros((0, dataset.rows.shape[1]), np.float32)
        categories.append(fit(rows, two, device=device) if len(np.unique(rows, axis=0)) >= 2 else dataset)
    return Levels(dataset, tuple(categories), of_images)


@dataclass(frozen=True, slots=True)
class Seen:
    """One image by centroids whose sides are not known yet: margins of row 1 over row 0, the image's own with its foreground above 0,
    and its superclass."""

    margins: Margins
    category: int


def see(features: FeatureMap, levels: Levels, options: KMeansOptions, side: Side = "border") -> Seen:
    """The three margins of one image; ``side`` says which of its own two clusters is its foreground.

    Raises InputError if the features hold infinities or NaN, or lack the CLS vector that superclasses need.
    """
    if not np.isfinite(features.patch).all() or (features.cls is not None and not np.isfinite(features.cls).all()):
        raise InputError(f"{show_path(features.image.file_name)}: its features hold infinities or NaN; extract them again")
    channels = levels.dataset.rows.shape[1]
    if features.patch.shape[2] != channels:
        raise InputError(f"{show_path(features.image.file_name)} has {features.patch.shape[2]} channels, the centroids {channels}")
    height, width, _ = features.patch.shape
    rows = unit_rows(features.patch.reshape(height * width, -1))
    category = levels.category_of(features)
    margins = []
    for centroids in (levels.dataset, levels.categories[category]):
        near = scores(rows, centroids)
        margins.append((near[:, 1] - near[:, 0]).reshape(height, width))
    return Seen(Margins(margins[0], margins[1], _own_margin(rows, (height, width), features.image.id, options, side)), category)


def _own_margin(rows: Float32, grid: tuple[int, int], number: int, options: KMeansOptions, rule: Side) -> Float32:
    """The image's own two clusters, the foreground above 0; all below 0 if its patches are all the same."""
    if np.array_equal(rows.min(0), rows.max(0)):
        return np.full(grid, -1, np.float32)
    labels, centroids = fit_each(torch.from_numpy(rows)[None], replace(options, k=2), seeds=[options.seed + number])
    clusters = labels[0].numpy().reshape(grid).astype(np.int32)
    near = rows @ centroids[0].numpy().astype(np.float32).T
    side = foreground_of_image(clusters, rule)
    margin = (near[:, side] - near[:, 1 - side]).reshape(grid)
    # Ties, and the last step's change of the centroids: the labels decide.
    return np.where(clusters == side, np.maximum(margin, 1e-6), np.minimum(margin, -1e-6)).astype(np.float32)


class Votes:
    """Which cluster of the data set and of each superclass the images' own foregrounds speak for, by the rule ``LightOptions.sign``."""

    def __init__(self, categories: int, rule: Sign = "overlap") -> None:
        self._rule = rule
        # Counts for each cluster, the data set's in row 0 and the superclasses' below: patches that are own foreground, all patches, and
        # images that share more of their foreground with it than with the other.
        self._shared = np.zeros((1 + categories, 2), np.int64)
        self._patches = np.zeros((1 + categories, 2), np.int64)
        self._images = np.zeros((1 + categories, 2), np.int64)

    def add(self, seen: Seen) -> None:
        """Count one image's patches."""
        own = seen.margins.image > 0
        for row, margin in ((0, seen.margins.dataset), (1 + seen.category, seen.margins.category)):
            second = margin > 0
            shared = np.array([(own & ~second).sum(), (own & second).sum()], np.int64)
            self._shared[row] += shared
            self._patches[row] += (second.size - second.sum(), second.sum())
            self._images[row] += shared > shared[::-1]

    def signs(self) -> tuple[int, list[int]]:
        """+1 where cluster 1 is the foreground, -1 where 0 is: for the data set, and for each superclass. Equal votes give 1 [choice]."""
        # Shares are compared as products of Python's integers: no rounding, and no overflow at billions of patches.
        shares = self._shared.astype(object) * self._patches[:, ::-1].astype(object)
        votes = {"overlap": self._shared, "share": shares, "images": self._images}[self._rule].tolist()
        signs = [1 if second >= first else -1 for first, second in votes]
        return signs[0], signs[1:]


def turned(seen: Seen, signs: tuple[int, list[int]]) -> Margins:
    """Margins with the foreground above 0."""
    dataset, category, image = seen.margins
    return Margins(signs[0] * dataset, signs[1][seen.category] * category, image)


def foreground_last(levels: Levels, signs: tuple[int, list[int]]) -> Levels:
    """The same centroids with the foreground's in row 1."""
    categories = tuple(_turned(one, sign) for one, sign in zip(levels.categories, signs[1], strict=True))
    return Levels(_turned(levels.dataset, signs[0]), categories, levels.superclasses)


def _turned(centroids: Centroids, sign: int) -> Centroids:
    return centroids if sign > 0 else replace(centroids, rows=centroids.rows[::-1].copy(), counts=centroids.counts[::-1].copy())
