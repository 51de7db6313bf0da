"""Semantic segmentation: IoU of classes, whose names the predictions know, or whose clusters are matched to them.

One confusion matrix over all images (METHODS: pixels by ground-truth and predicted id; void pixels of the ground truth leave both
margins). A class has IoU = TP / (TP + FP + FN). Two reductions have been published under one name, and differ by
points, so both are given:

- ``mIoU``: the mean over the classes that the ground truth has,
- ``mIoU_strict``: over the classes that the ground truth or the prediction has; one that is predicted but not there counts 0.
  It is mmseg's mean, which leaves out classes whose union is empty.

Clusters (``match`` "counts" or "iou") get classes by the assignment of one cluster to one class that makes the sum of common pixels, or
of IoUs, largest (Kuhn, 1955; scipy's). It is fitted on the images that are scored, so it is a ceiling, not a prediction. Clusters that
are left over have no class: their pixels are errors, never dropped. Classes that are left over have IoU 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from ovskit.core.eval.confusion import NOTHING, Confusion, Int64, PairCounts, count_pairs
from ovskit.core.eval.metric import Row, Scores
from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.records import LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError

Float64 = npt.NDArray[np.float64]
Weights = npt.NDArray[np.int32]

_NAMED = 10  # ids that a message lists


@dataclass(frozen=True, slots=True)
class SemanticOptions:
    """``classes`` are the ids that there are, by name; None takes those of the ground truth. ``background`` is one of them, which pixels
    without a label belong to; None says that they belong to no class.

    ``match`` gives classes to clusters, by common pixels ("counts") or "iou"; "ids" takes predicted ids as classes. ``joint`` has the
    background found by the matching like any other class, and unlabelled pixels be a cluster like any other.
    """

    classes: Mapping[int, str] | None = None
    background: int | None = None
    match: Literal["ids", "counts", "iou"] = "ids"
    joint: bool = False


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class: its pixels in the ground truth, the pixels predicted as it, those that are both; ``cluster`` is what was matched to
    it (-1: unlabelled pixels), None for a class without a cluster or without matching."""

    id: int
    name: str
    truth: int
    predicted: int
    common: int
    cluster: int | None

    @property
    def iou(self) -> float | None:
        """IoU in [0, 1]; None for a class that neither side has."""
        union = self.truth + self.predicted - self.common
        return self.common / union if union else None


class SemanticScores(Scores):
    """Scores of label maps."""

    rows = (
        Row("mIoU", "mIoU, the ground truth's classes"),
        Row("mIoU_strict", "mIoU, predicted classes count too (mmseg's mean)"),
        Row("pixel_accuracy", "pixel accuracy"),
        Row("mean_accuracy", "mean accuracy of classes"),
        Row("fwIoU", "IoU weighted by frequency"),
    )

    def __init__(self, options: SemanticOptions) -> None:
        self.options = options
        self._confusion = Confusion()
        self._fitted: _Fitted | None = None

    def work(self, truth: LabelMap, predictions: LabelMap | MaskSet) -> PairCounts:
        """Count one image's pairs of ids; masks are painted (``painted_prediction``). Raises InputError for masks that cannot be."""
        predicted = painted_prediction(predictions) if isinstance(predictions, MaskSet) else predictions
        return count_pairs(truth.labels, predicted.labels)

    def add(self, position: int, pairs: PairCounts) -> None:
        """Take in the image at ``position``."""
        self._confusion.add(position, pairs)
        self._fitted = None

    def check(self, truth: str, predictions: str) -> None:
        """Raises InputError for ids that are not classes, or no pixel to score."""
        _, pairs = self._confusion.rows()
        if not len(pairs.pixels):
            raise InputError(f"{truth}: every pixel is void: there is nothing to score")
        classes = self._classes(pairs)
        sides = [(pairs.truth, truth)]
        if self.options.match == "ids" and self.options.classes is not None:
            sides.append((pairs.predicted, predictions))
        for ids, name in sides:
            strangers = np.setdiff1d(ids, [NOTHING, *classes])
            if len(strangers):
                raise InputError(f"{name}: {_listed(strangers)} outside the label space, whose ids are {_spans(list(classes))}")

    def warnings(self, predictions: str) -> list[str]:
        """What a reader of the scores should know."""
        _, pairs = self._confusion.rows()
        if (pairs.predicted == NOTHING).all():
            return [f"{predictions}: no pixel that counts has a label"]
        left = self.leftovers()
        if not left:
            return []
        clusters = "1 cluster is" if len(left) == 1 else f"{len(left)} clusters are"
        pixels = f"{sum(left.values()):,}"
        return [f"{predictions}: {clusters} left over, since there are fewer classes; all their pixels, {pixels}, count as errors"]

    def cells(self) -> int:
        """How many numbers ``values`` holds for every column of its weights."""
        fitted = self._fit()
        return len(fitted.row) + 4 * len(fitted.classes)

    def values(self, weights: Weights) -> Float64:
        """Every metric, float64 (names, b) in [0, 1], where the image at position k counts ``weights[k]`` (images, b) times.

        Clusters keep the classes that all images gave them.
        """
        fitted = self._fit()
        totals = fitted.by_image(weights.shape[0]) @ weights.astype(np.float64)
        return _metrics(*fitted.margins(totals))

    def values_by_image(self, images: int) -> Float64:
        """Every metric of every image by itself, float64 (names, images)."""
        fitted = self._fit()
        return _metrics(*fitted.margins(fitted.by_image(images).toarray()))

    def to_json(self) -> dict[str, Any]:
        """Every class, and the clusters that are left over."""
        return {
            "classes": [{**asdict(one), "iou": one.iou} for one in self.by_class()],
            "clusters_left_over": [{"id": k, "pixels": n} for k, n in self.leftovers().items()],
        }

    def by_class(self) -> list[ClassScore]:
        """Every class, in the order of the label space."""
        fitted = self._fit()
        totals = np.bincount(fitted.cell, fitted.pixels, len(fitted.row)).astype(np.float64)[:, None]
        common, truth, predicted = (margin[:, 0].astype(np.int64).tolist() for margin in fitted.margins(totals))
        clusters = {c: cluster for cluster, c in fitted.matching.items()}
        return [
            ClassScore(number, name, truth[c], predicted[c], common[c], clusters.get(c))
            for c, (number, name) in enumerate(fitted.classes.items())
        ]

    def leftovers(self) -> dict[int, int]:
        """The clusters that no class was matched with, and their pixels."""
        fitted = self._fit()
        if self.options.match == "ids":
            return {}
        _, pairs = self._confusion.rows()
        ids, pixels = _sums(pairs.predicted, pairs.pixels)
        taken = {*fitted.matching, *([NOTHING] if not self.options.joint else [])}
        return {number: count for number, count in zip(ids.tolist(), pixels.tolist(), strict=True) if number not in taken}

    def _classes(self, pairs: PairCounts) -> dict[int, str]:
        if self.options.classes is not None:
            return dict(self.options.classes)
        found = {*pairs.truth.tolist(), *(pairs.predicted.tolist() if self.options.match == "ids" else [])} - {NOTHING}
        return {number: str(number) for number in sorted(found)}

    def _fit(self) -> _Fitted:
        if self._fitted is None:
            position, pairs = self._confusion.rows()
            classes = self._classes(pairs)
            place = {number: c for c, number in enumerate(classes)}
            background = place.get(self.options.background) if self.options.background is not None else None
            if self.options.match == "ids":
                columns, matching = dict(place), {}
            else:
                fixed = None if self.options.joint else background
                matching = _matched(pairs, place, fixed, by_iou=self.options.match == "iou", joint=self.options.joint)
                columns = dict(matching)
            if background is not None and not (self.options.joint and self.options.match != "ids"):
                columns[NOTHING] = background
            self._fitted = _Fitted(position, pairs, classes, place, columns, matching)
        return self._fitted


class _Fitted:
    """The confusion matrix with its columns as classes: ``row`` and ``column`` of its cells, and for each image's share of a cell its
    ``position``, ``cell`` and ``pixels``. A column of -1 is not a class."""

    def __init__(
        self,
        position: Int64,
        pairs: PairCounts,
        classes: dict[int, str],
        place: Mapping[int, int],
        columns: Mapping[int, int],
        matching: dict[int, int],
    ) -> None:
        self.classes, self.matching = classes, matching
        self.position, self.pixels = position, pairs.pixels
        row = _mapped(pairs.truth, place)
        column = _mapped(pairs.predicted, columns)
        width = len(classes) + 1
        cells, self.cell = np.unique(row * width + column + 1, return_inverse=True)
        self.row, self.column = cells // width, cells % width - 1

    def by_image(self, images: int) -> csr_array:
        """(cells, images)."""
        return csr_array((self.pixels.astype(np.float64), (self.cell, self.position)), shape=(len(self.row), images))

    def margins(self, totals: Float64) -> tuple[Float64, Float64, Float64]:
        """The pixels of every class that are right, those of the ground truth, and those predicted: (classes, b), from cells (cells, b)."""
        right = self.row == self.column
        there = self.column >= 0
        n = len(self.classes)
        return (
            _summed(self.row[right], totals[right], n),
            _summed(self.row, totals, n),
            _summed(self.column[there], totals[there], n),
        )


def _matched(pairs: PairCounts, place: Mapping[int, int], fixed: int | None, *, by_iou: bool, joint: bool) -> dict[int, int]:
    """The class of each cluster that has one. ``fixed`` is a class that takes no part."""
    clusters = [number for number in np.unique(pairs.predicted).tolist() if joint or number != NOTHING]
    common = np.zeros((len(clusters), len(place)), np.float64)
    row, column = _mapped(pairs.predicted, {number: k for k, number in enumerate(clusters)}), _mapped(pairs.truth, place)
    inside = row >= 0
    np.add.at(common, (row[inside], column[inside]), pairs.pixels[inside])
    gain = common
    if by_iou:
        truth = np.bincount(column, pairs.pixels, len(place))
        union = common.sum(1, keepdims=True) + truth[None] - common
        gain = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    open_ = [c for c in range(len(place)) if c != fixed]
    found = linear_sum_assignment(gain[:, open_], maximize=True)
    return {clusters[k]: open_[c] for k, c in zip(*(part.tolist() for part in found), strict=True)}


def _metrics(common: Float64, truth: Float64, predicted: Float64) -> Float64:
    """(metrics, b) of margins (classes, b); NaN where there is no pixel."""
    union = truth + predicted - common
    iou = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    recall = np.divide(common, truth, out=np.zeros_like(union), where=truth > 0)
    there, either, pixels = truth > 0, union > 0, truth.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array(
            [
                np.where(there, iou, 0).sum(0) / there.sum(0),
                iou.sum(0) / np.where(there.any(0), either.sum(0), 0),
                common.sum(0) / pixels,
                recall.sum(0) / there.sum(0),
                (truth * iou).sum(0) / pixels,
            ]
        )


def _mapped(ids: Int64, to: Mapping[int, int]) -> Int64:
    """Each id's entry, -1 for one without."""
    distinct, inverse = np.unique(ids, return_inverse=True)
    return np.array([to.get(number, -1) for number in distinct.tolist()], np.int64)[inverse]


def _summed(index: Int64, rows: Float64, length: int) -> Float64:
    """(length, b): the sums of ``rows`` (n, b) that have one index."""
    return csr_array((np.ones(len(index)), (index, np.arange(len(index)))), shape=(length, len(index))) @ rows


def _sums(ids: Int64, pixels: Int64) -> tuple[Int64, Int64]:
    distinct, inverse = np.unique(ids, return_inverse=True)
    return distinct, np.bincount(inverse, pixels, len(distinct)).astype(np.int64)


def _listed(ids: Int64) -> str:
    text = ", ".join(map(str, ids[:_NAMED].tolist())) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
    return f"id {text} is" if len(ids) == 1 else f"ids {text} are"


def _spans(ids: list[int]) -> str:
    """Ids as spans, such as 0-20."""
    ordered = sorted(ids)
    spans: list[list[int]] = []
    for number in ordered:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    return ", ".join(words[:_NAMED]) + (" …" if len(words) > _NAMED else "")
