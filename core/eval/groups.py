"""What is scored by itself before it is averaged: categories, and annotators' partitions."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int32]

Annotator = int | str | None


class Groups:
    """Numbers (annotator, category) pairs as they come up, and averages over them.

    Without annotators the only one is None, without categories the only one is None. Averages go through groups in the order of
    their keys, so they do not depend on the order in which groups came up.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[Annotator, int | None], int] = {}
        self._annotators: dict[Annotator, int] = {}
        self._present: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._groups)

    def index(self, annotator: Annotator, category: int | None) -> int:
        """The number of a group, from 0."""
        self._annotators.setdefault(annotator, len(self._annotators))
        return self._groups.setdefault((annotator, category), len(self._groups))

    def of(self, categories: Container[int | None]) -> npt.NDArray[np.bool_]:
        """Which groups are of one of ``categories``, bool (groups,)."""
        return np.array([category in categories for _, category in self._groups], np.bool_)

    def saw(self, annotator: Annotator, position: int) -> None:
        """Note that the image at ``position`` has masks of ``annotator``."""
        self._present.append((self._annotators.setdefault(annotator, len(self._annotators)), position))

    def images(self, weights: Weights) -> Int64:
        """How many images each annotator has, int64 (annotators, b), where image k counts ``weights[k]`` (images, b) times."""
        out = np.zeros((len(self._annotators), weights.shape[1]), np.int64)
        if self._present:
            annotator, position = np.array(self._present, np.int64).T
            np.add.at(out, annotator, weights[position])
        return out

    def average(self, values: Float64, images: Int64) -> Float64:
        """One number (b,) from ``values`` (groups, b), NaN where undefined.

        The mean over an annotator's categories that are defined, then over annotators the mean weighted by their ``images``
        (annotators, b) [choice]; NaN where no group is defined.
        """
        order = sorted(self._annotators, key=_key)
        means = np.full((len(order), values.shape[1]), np.nan)
        for k, annotator in enumerate(order):
            members = sorted((group for group in self._groups if group[0] == annotator), key=lambda group: group[1] or 0)
            means[k] = mean_defined(values[[self._groups[group] for group in members]])
        if len(order) == 1:
            only: Float64 = means[0]
            return only
        weight = np.where(np.isnan(means), 0, images[[self._annotators[annotator] for annotator in order]])
        return _ratio((np.nan_to_num(means) * weight).sum(axis=0), weight.sum(axis=0))

    def average_by_image(self, values: Float64, group: Int64, position: Int64, images: int) -> Float64:
        """The same for every image by itself: ``values`` (rows,), each of a ``group`` and an image's ``position``, to (images,)."""
        order = {annotator: k for k, annotator in enumerate(sorted(self._annotators, key=_key))}
        annotator_of = np.zeros(max(1, len(self._groups)), np.int64)
        for (annotator, _), k in self._groups.items():
            annotator_of[k] = order[annotator]
        width = max(1, len(order))
        defined = ~np.isnan(values)
        cell = (position * width + annotator_of[group])[defined]
        means = _ratio(np.bincount(cell, values[defined], images * width), np.bincount(cell, minlength=images * width))
        return mean_defined(means.reshape(images, width).T)


def mean_defined(values: Float64) -> Float64:
    """The mean over axis 0 of the values that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))


def _ratio(above: Float64 | Int64, below: Float64 | Int64) -> Float64:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _key(annotator: Annotator) -> tuple[str, int, str]:
    return (type(annotator).__name__, annotator if isinstance(annotator, int) else 0, str(annotator))
