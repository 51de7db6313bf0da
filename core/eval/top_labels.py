"""Accuracy of labels of whole images: how often the best, or one of the best five, is right.

An image may be of several classes; a label is right that is any of them, as in "Are we done with ImageNet?" (Beyer et al., 2020).
``mean_class_top1`` is the mean over classes of the share of a class' images whose best label is right; an image of several classes
counts for each of them [choice].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ovskit.core.eval.metric import Row, Scores
from ovskit.core.formats.truth.image_classes import Written
from ovskit.core.records import ImageLabels, MaskSet

Float64 = npt.NDArray[np.float64]
Weights = npt.NDArray[np.int32]

TOP = 5


class _Seen:
    """One image: its classes, whether its best label is right, and one of the best five, and how many labels it has, None for an image
    without any."""

    __slots__ = ("best", "classes", "five", "labels")

    def __init__(self, classes: Sequence[int], labels: Sequence[int]) -> None:
        self.classes = tuple(classes)
        self.best = bool(labels) and labels[0] in classes
        self.five = any(label in classes for label in labels[:TOP])
        self.labels = len(labels) or None


class TopScores(Scores):
    """Scores of labels of images. ``ids`` are the classes that the ground truth writes, ``names`` all classes by id; ``choices`` is how
    many classes labels are chosen from."""

    rows = (
        Row("top1", "top-1, the best label is right"),
        Row("top5", "top-5, one of the best five is right"),
        Row("mean_class_top1", "top-1, mean over classes"),
    )

    def __init__(self, ids: Mapping[Written, int], names: Mapping[int, str], choices: int) -> None:
        self._ids, self._names, self._choices = ids, names, choices
        self._seen: dict[int, _Seen] = {}

    def work(self, truth: Sequence[Written], predictions: ImageLabels | MaskSet) -> _Seen:
        """``predictions`` are an image's labels; a ``MaskSet`` without masks stands for those of an image that is not listed."""
        labels = predictions.labels if isinstance(predictions, ImageLabels) else ()
        return _Seen(tuple(dict.fromkeys(self._ids[one] for one in truth)), [label.id for label in labels])

    def add(self, position: int, result: _Seen) -> None:
        """Take in the image at ``position``."""
        self._seen[position] = result

    def check(self, truth: str, predictions: str) -> None:
        """Nothing more can be wrong: that an image was found is for who pairs them."""
        return

    def warnings(self, predictions: str) -> list[str]:
        """Says where fewer labels are listed than top-5 needs."""
        if self._has_five():
            return []
        few = self._fewest()
        return [f"{predictions}: top-5 is not defined: an image has {few} label{'s' * (few != 1)}, and {self._needed()} are needed"]

    def cells(self) -> int:
        """How many numbers ``values`` holds for every column of its weights."""
        return len(self.rows) + 2 * len(self._names)

    def values(self, weights: Weights) -> Float64:
        """Every number, float64 (3, b) in [0, 1], where the image at position k counts ``weights[k]`` (images, b) times.

        Top-5 is NaN where fewer labels are listed than it needs; the mean over classes goes over those that have an image.
        """
        drawn = weights.astype(np.float64)
        best, five = self._by_position(weights.shape[0])
        own, right = self._by_class(weights.shape[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            scored = self._scored(weights.shape[0]) @ drawn
            top1, top5 = best @ drawn / scored, five @ drawn / scored
            of_class = (right @ drawn) / (own @ drawn)
        there = ~np.isnan(of_class)
        counts = there.sum(axis=0)
        mean = np.where(counts > 0, np.where(there, of_class, 0).sum(axis=0) / np.maximum(counts, 1), np.nan)
        return np.stack([top1, top5 if self._has_five() else np.full_like(top5, np.nan), mean])

    def values_by_image(self, images: int) -> Float64:
        """Every number of every image by itself, float64 (3, ``images``), 0 or 1; NaN for one that was not scored."""
        best, five = self._by_position(images)
        found = np.stack([best, five if self._has_five() else np.full(images, np.nan), best])
        found[:, self._scored(images) == 0] = np.nan
        return found

    def to_json(self) -> dict[str, Any]:
        """Every class that has an image: its images, and those whose best label is right."""
        return {"classes": [{"id": k, "name": name, "images": n, "right": right} for k, name, n, right in self.by_class()]}

    def by_class(self) -> list[tuple[int, str, int, int]]:
        """Id, name, images and right ones of every class that has an image, in order of ids."""
        images: dict[int, int] = {}
        right: dict[int, int] = {}
        for one in self._seen.values():
            for number in one.classes:
                images[number] = images.get(number, 0) + 1
                right[number] = right.get(number, 0) + one.best
        return [(number, self._names[number], images[number], right[number]) for number in sorted(images)]

    def _needed(self) -> int:
        return min(TOP, self._choices)

    def _fewest(self) -> int:
        return min((one.labels for one in self._seen.values() if one.labels is not None), default=TOP)

    def _has_five(self) -> bool:
        return self._fewest() >= self._needed()

    def _scored(self, images: int) -> Float64:
        found = np.zeros(images)
        found[list(self._seen)] = 1
        return found

    def _by_position(self, images: int) -> tuple[Float64, Float64]:
        best, five = np.zeros(images), np.zeros(images)
        for position, one in self._seen.items():
            best[position], five[position] = one.best, one.five
        return best, five

    def _by_class(self, images: int) -> tuple[csr_array, csr_array]:
        """(classes, images): which classes each image is of, and the same where its best label is right."""
        place = {number: c for c, number in enumerate(sorted(self._names))}
        pairs = [(place[number], k, one.best) for k, one in self._seen.items() for number in one.classes]
        row, column, right = (np.array([pair[i] for pair in pairs], np.int64) for i in range(3))
        shape = (len(place), images)
        return csr_array((np.ones(len(pairs)), (row, column)), shape), csr_array((right.astype(np.float64), (row, column)), shape)
