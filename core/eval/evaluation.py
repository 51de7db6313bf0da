"""Score masks against a ground truth: numbers, their intervals, and differences between two sets of masks.

truth, metric = open_ground_truth("instances.json"), make_metric("ar")
first, second = (evaluate(sets, truth, metric) for sets in (some, others))
first.metrics()["AR@1000"], first.intervals(1000, seed=0)["AR@1000"]
second.difference(first, 1000, seed=0)["AR@1000"]  # second minus first, on the same images
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.bootstrap import interval, replicate
from ovskit.core.eval.image_pairing import ImageCounts, Pairing
from ovskit.core.eval.metric import Images, Metric, Row, Scores
from ovskit.core.formats.labels.maps import LabelTruth
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.formats.truth.image_classes import ImageClasses
from ovskit.core.records import Image, ImageLabels, LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import default_workers, ordered_map

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Truth = GroundTruth | LabelTruth | ImageClasses
"""What predictions are compared with."""

Predicted = MaskSet | LabelMap | ImageLabels
"""What is predicted of an image."""

UNKNOWN_FILE = MasksHeader(exif="unknown")
"""The header of predictions of unknown origin: their images have names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two scores, and its interval, each None where it is undefined."""

    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _ImageResult:
    """The result of one image from a worker."""

    position: int
    result: Any
    masks: tuple[int, int]  # of the ground truth and of the predictions


class Evaluator:
    """Takes predictions image by image: ``add`` each, then ``finish``. ``evaluate`` does the same, several images at once.

    ``truth`` is what the ``metric`` compares with, as its ``open_truth`` gives it: masks for most. Holds the metric's sums of every image,
    never masks. ``images``: "all" of the ground truth, or those "listed" by the predictions. ``what`` names the predictions in messages,
    and ``header`` is that of their file: whether their images have names, how orientations were treated, what their categories are, and
    whether it is a results list, which does not list images without a mask, so that an empty one is not a mistake. Raises InputError for
    predictions and a ground truth that cannot be compared.
    """

    def __init__(
        self,
        truth: Truth,
        metric: Metric,
        *,
        images: Images = "all",
        what: str = "the predictions",
        header: MasksHeader = UNKNOWN_FILE,
    ) -> None:
        self.truth = truth
        self.metric = metric
        self.what = what
        self._everything = images == "all"
        self._pairing = Pairing(truth, what, named=header.named, exif=header.exif, may_be_empty=header.results and self._everything)
        self._scores = metric.scores(truth, header, what)
        self._masks: dict[int, tuple[int, int]] = {}  # numbers of the ground truth and of the predictions, by position

    def add(self, masks: Predicted) -> None:
        """Score one image's masks. Raises InputError for what is wrong with them or with the ground truth's."""
        position = self._pairing.place(masks.image)
        if position is not None:
            self._take(self._work((position, masks)))

    def finish(self) -> Evaluation:
        """The scores, when all predictions have been added. Raises InputError if none of them could be scored."""
        self._pairing.check()
        if self._everything:
            for pair in self._pairing.rest():
                self._take(self._work(pair))
        return self._evaluation()

    def run(
        self,
        sets: Iterable[Predicted],
        workers: int,
        watch: Callable[[Iterable[Any]], Iterable[Any]],
        failures: Failures | None = None,
    ) -> Evaluation:
        """Score all of ``sets`` (see ``evaluate``)."""

        def attempt(pair: tuple[int, Predicted]) -> _ImageResult | InputError | MissingInputError:
            try:
                return self._work(pair)
            except (InputError, MissingInputError) as error:
                return error

        pairs = self._pairing.pairs(sets, everything=self._everything)
        for scored in watch(ordered_map(attempt, pairs, workers)):
            if isinstance(scored, _ImageResult):
                self._take(scored)
            elif failures is None:
                raise scored
            else:
                failures.handle_again(scored)
        return self._evaluation()

    def _work(self, pair: tuple[int, Predicted]) -> _ImageResult:
        position, predictions = pair
        truth = self.truth.load(position)
        result = self._scores.work(truth, predictions)
        masks = (_number_of_masks(truth), _number_of_masks(predictions)) if self.metric.masks else (0, 0)
        return _ImageResult(position, result, masks)

    def _take(self, scored: _ImageResult) -> None:
        self._scores.add(scored.position, scored.result)
        self._masks[scored.position] = scored.masks

    def _evaluation(self) -> Evaluation:
        self._scores.check(self.truth.what, self.what)
        warnings = self._pairing.warnings(everything=self._everything, absent=self.metric.absent) + self._scores.warnings(self.what)
        return Evaluation(self.truth, self.metric, self.what, self._scores, self._masks, self._pairing.counts(), tuple(warnings))


def evaluate(
    sets: Iterable[MaskSet] | Iterable[LabelMap] | Iterable[ImageLabels],
    truth: Truth,
    metric: Metric,
    *,
    images: Images = "all",
    what: str = "the predictions",
    header: MasksHeader = UNKNOWN_FILE,
    workers: int | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    failures: Failures | None = None,
) -> Evaluation:
    """Score a stream of masks against ``truth``; the result depends neither on the order of images nor on ``workers``.

    Images are found by ``GroundTruth.find``, by id where one side has no names; those of the ground truth that the stream does not list
    count as without masks, unless ``images`` is "listed". A few images are in memory at once. Masks without a score all have 1, and rank
    in the order of the stream [choice]. ``watch`` may wrap the images as they are done, for a progress bar.

    ``what`` and ``header`` as for ``Evaluator``. An image whose masks or maps cannot be used, of either side, goes to ``failures`` if
    given, and is not scored. Raises InputError if no image is found, two are the same one, sizes differ, the ``metric`` has nothing to
    score or cannot (``Scores.check``), or as ``sets`` does.
    """
    evaluator = Evaluator(truth, metric, images=images, what=what, header=header)
    return evaluator.run(sets, workers or default_workers(), watch, failures)


class Evaluation:
    """The scores of one set of predictions.

    ``what`` names it; ``truth`` is what it was compared with, by ``metric``; ``images`` are those scored, in order of id; ``counts`` tells
    how images were matched; ``truth_masks`` and ``predicted_masks`` are how many masks those images have, 0 for metrics of something else;
    ``scores`` are the metric's own; ``warnings`` are lines for a person. Numbers are None where undefined.
    """

    def __init__(
        self,
        truth: Truth,
        metric: Metric,
        what: str,
        scores: Scores,
        masks: dict[int, tuple[int, int]],
        counts: ImageCounts,
        warnings: tuple[str, ...],
    ) -> None:
        self.truth = truth
        self.metric = metric
        self.scores = scores
        self.what = what
        self.counts = counts
        self.warnings = warnings
        self._length = len(truth)
        self._positions = np.array(sorted(masks), np.int64)
        self._masks = masks
        self.images: tuple[Image, ...] = tuple(truth.images[k] for k in self._positions.tolist())
        self.truth_masks = sum(own[0] for own in masks.values())
        self.predicted_masks = sum(own[1] for own in masks.values())
        self._values: Float64 | None = None
        self._replicates: tuple[tuple[int, int], Float64] | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The metrics, in the order to show them in."""
        return tuple(self.scores.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(row.name for row in self.rows)

    def metrics(self) -> dict[str, float | None]:
        """Every metric."""
        if self._values is None:
            weights = np.zeros((self._length, 1), np.int32)
            weights[self._positions] = 1
            self._values = self.scores.values(weights)[:, 0]
        return dict(zip(self.names, map(_defined, self._values.tolist()), strict=True))

    def intervals(self, n: int = 1000, seed: int = 0, confidence: float = 0.95) -> dict[str, tuple[float, float] | None]:
        """Every metric's percentile interval from ``n`` resamples of the images; None where it has none.

        ``confidence`` is the share of resamples within. Maxima of trees have no interval: the bootstrap is not a guide to extremes.
        """
        return self._intervals(self._resampled(n, seed), confidence)

    def difference(self, other: Evaluation, n: int = 0, seed: int = 0, confidence: float = 0.95) -> dict[str, Difference]:
        """This evaluation's metrics minus those of ``other``; with ``n`` > 0 the intervals from the same resamples of both.

        Raises InputError if the two are not of the same images and metrics.
        """
        if self.names != other.names or self.images != other.images:
            raise InputError(
                f"{self.what} and {other.what} are not scored on the same images, so their difference means nothing; use --images all"
            )
        values = {name: (a, b) for (name, a), b in zip(self.metrics().items(), other.metrics().values(), strict=True)}
        spans = self._intervals(self._resampled(n, seed) - other._resampled(n, seed), confidence) if n else dict.fromkeys(values)
        return {name: Difference(None if a is None or b is None else a - b, spans[name]) for name, (a, b) in values.items()}

    def per_image(self) -> Iterator[dict[str, Any]]:
        """Every image's ``file_name``, ``id``, numbers of masks (``ground_truth``, ``predictions``), and ``metrics`` of it alone."""
        values = self.scores.values_by_image(self._length)
        for position, image in zip(self._positions.tolist(), self.images, strict=True):
            truth, predictions = self._masks[position]
            metrics = dict(zip(self.names, map(_defined, values[:, position].tolist()), strict=True))
            yield {
                "file_name": image.file_name, "id": image.id, "ground_truth": truth, "predictions": predictions, "metrics": metrics,
            }  # fmt: skip

    def _resampled(self, n: int, seed: int) -> Float64:
        """(metrics, n)."""
        if self._replicates is None or self._replicates[0] != (n, seed):
            self._replicates = (n, seed), replicate(self.scores, self._positions, self._length, n, seed)
        return self._replicates[1]

    def _intervals(self, values: Float64, confidence: float) -> dict[str, tuple[float, float] | None]:
        return {row.name: interval(own, confidence) if row.resampled else None for row, own in zip(self.rows, values, strict=True)}


def _number_of_masks(record: Any) -> int:
    assert isinstance(record, MaskSet)
    return len(record.masks)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
