"""Score masks against a ground truth: numbers, their intervals, and differences between two sets of masks.

truth = open_ground_truth("instances.json")
first, second = (evaluate(sets, truth, EvalOptions(metric="ar")) for sets in (some, others))
first.metrics()["AR@1000"], first.intervals(1000, seed=0)["AR@1000"]
second.difference(first, 1000, seed=0)["AR@1000"]  # second minus first, on the same images
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.bootstrap import interval, replicate
from ovskit.core.eval.detection import DetectionScores
from ovskit.core.eval.hierarchy import HierarchyScores
from ovskit.core.eval.semantic import SemanticOptions, SemanticScores
from ovskit.core.eval.stream import ImageCounts, Pairing
from ovskit.core.formats.coco.lvis import Searched, frequencies
from ovskit.core.formats.labels.maps import LabelTruth, painted_prediction
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.records import Image, LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import default_workers, ordered_map

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# LVIS' max_dets, an image's masks of all categories together.
LVIS_MAXIMA = (300,)

UNKNOWN_FILE = MasksHeader(exif="unknown")
"""What is known of predictions of which nobody knows where they are from: their images have names."""


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What to score, and how.

    ``metric``: "ar" (AR@k for every k of ``maxima``, AR_S, AR_M, AR_L and AP), "ap" (AP, AP50, AP75, AP_S, AP_M, AP_L),
    "hierarchy" (see ``eval.hierarchy``) or "miou" (see ``eval.semantic``; ``semantic`` says how), which have no use for the next
    three. ``maxima``: numbers of masks an image may have, the highest scores first; sizes and AP go by the largest. ``by_category``:
    match within categories and average over them (COCO's useCats=1; of LVIS' ground truth as LVIS does it, see ``DetectionScores``)
    instead of ignoring them. ``per_annotator``: score each annotator's masks by themselves, over the images that
    have some, and average, weighted by those numbers of images [choice]. ``images``: "all" of the ground truth, or those "listed"
    by the predictions.
    """

    metric: Literal["ar", "ap", "hierarchy", "miou"] = "ar"
    maxima: tuple[int, ...] = (1, 10, 1000)
    by_category: bool = False
    per_annotator: bool = False
    images: Literal["all", "listed"] = "all"
    semantic: SemanticOptions = field(default_factory=SemanticOptions)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two scores, and its interval, each None where it is undefined."""

    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Scored:
    """What a worker makes of one image."""

    position: int
    result: Any
    truth: int
    predictions: int
    with_score: int


class Evaluator:
    """Takes predictions image by image: ``add`` each, then ``finish``. ``evaluate`` does the same, several images at once.

    For "miou" the ground truth is one of label maps, and predictions are label maps or masks, which are painted. Holds sums of every
    image, and for AP a temporary file of the predictions; never masks. While an image is matched it holds the pairs of masks that
    overlap by half, 16 bytes of each (``formats.rle_pairs``), never a matrix of all. ``what`` names the predictions in messages,
    and ``header`` is what their file says of them: whether their images have names, how orientations were taken, and whether it is a
    results list, which says nothing of images without a mask, so that one without any is no mistake. Raises InputError for a ground
    truth of LVIS' that does not say of every image what it was searched for, where that matters.
    """

    def __init__(
        self,
        truth: GroundTruth | LabelTruth,
        options: EvalOptions | None = None,
        *,
        what: str = "the predictions",
        header: MasksHeader = UNKNOWN_FILE,
    ) -> None:
        self.truth = truth
        self.options = options = options or EvalOptions()
        self.what = what
        self._pairing = Pairing(truth, what, named=header.named, exif=header.exif, may_be_empty=header.results and options.images == "all")
        self._scores: DetectionScores | HierarchyScores | SemanticScores
        if options.metric == "miou":
            self._scores = SemanticScores(options.semantic)
        elif options.metric == "hierarchy":
            self._scores = HierarchyScores()
        else:
            assert isinstance(truth, GroundTruth)
            if options.by_category and truth.searched is not None:
                _check_searched(truth, truth.searched)
            self._scores = DetectionScores(
                options.metric,
                tuple(sorted(options.maxima)),
                by_category=options.by_category,
                per_annotator=options.per_annotator,
                searched=truth.searched,
                frequency=frequencies(truth.categories),
            )
        self._sizes: dict[int, tuple[int, int]] = {}  # masks of the ground truth and of the predictions, by position
        self._with_score = self._without_score = 0

    def add(self, masks: MaskSet | LabelMap) -> None:
        """Score one image's masks. Raises InputError for what is wrong with them or with the ground truth's."""
        position = self._pairing.place(masks.image)
        if position is not None:
            self._take(self._work((position, masks)))

    def finish(self) -> Evaluation:
        """The scores, when all predictions have been added. Raises InputError if none of them was of use."""
        self._pairing.check()
        if self.options.images == "all":
            for pair in self._pairing.rest():
                self._take(self._work(pair))
        return self._evaluation()

    def run(
        self,
        sets: Iterable[MaskSet | LabelMap],
        workers: int,
        watch: Callable[[Iterable[Any]], Iterable[Any]],
        failures: Failures | None = None,
    ) -> Evaluation:
        """Score all of ``sets`` (see ``evaluate``)."""

        def attempt(pair: tuple[int, MaskSet | LabelMap]) -> _Scored | InputError | MissingInputError:
            try:
                return self._work(pair)
            except (InputError, MissingInputError) as error:
                return error

        pairs = self._pairing.pairs(sets, everything=self.options.images == "all")
        for scored in watch(ordered_map(attempt, pairs, workers)):
            if isinstance(scored, _Scored):
                self._take(scored)
            elif failures is None:
                raise scored
            else:
                failures.handle_again(scored)
        return self._evaluation()

    def _work(self, pair: tuple[int, MaskSet | LabelMap]) -> _Scored:
        position, predictions = pair
        truth = self.truth.load(position)
        if isinstance(self._scores, SemanticScores):
            assert isinstance(truth, LabelMap)
            predicted = painted_prediction(predictions) if isinstance(predictions, MaskSet) else predictions
            return _Scored(position, self._scores.work(truth.labels, predicted.labels), 0, 0, 0)
        assert isinstance(truth, MaskSet)
        assert isinstance(predictions, MaskSet)
        result = self._scores.work(truth, predictions)
        scored = sum(mask.score is not None for mask in predictions.masks)
        return _Scored(position, result, len(truth.masks), len(predictions.masks), scored)

    def _take(self, scored: _Scored) -> None:
        self._scores.add(scored.position, scored.result)
        self._sizes[scored.position] = scored.truth, scored.predictions
        self._with_score += scored.with_score
        self._without_score += scored.predictions - scored.with_score

    def _evaluation(self) -> Evaluation:
        ranked = isinstance(self._scores, DetectionScores)
        if ranked and self._with_score and self._without_score:
            raise InputError(
                f"{self.what}: {self._without_score} of {self._with_score + self._without_score} masks have no score and cannot be ranked: "
                "give a score to all, or to none"
            )
        if isinstance(self._scores, SemanticScores):
            self._scores.check(self.truth.what, self.what)
            said = [f"{self.what}: {warning}" for warning in self._scores.warnings()]
        elif isinstance(self._scores, DetectionScores):
            self._scores.check(self.truth.what, sum(size[0] for size in self._sizes.values()))
            said = self._scores.warnings()
        else:
            self._scores.check(self.truth.what)
            said = self._scores.warnings()
        warnings = self._pairing.warnings(everything=self.options.images == "all") + said
        if ranked and self._without_score:
            warnings.append(f"{self.what}: its masks have no score; they rank in the order of the stream, all with score 1")
        return Evaluation(self.truth, self.options, self.what, self._scores, self._sizes, self._pairing.counts(), tuple(warnings))


def evaluate(
    sets: Iterable[MaskSet] | Iterable[LabelMap],
    truth: GroundTruth | LabelTruth,
    options: EvalOptions | None = None,
    *,
    what: str = "the predictions",
    header: MasksHeader = UNKNOWN_FILE,
    workers: int | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    failures: Failures | None = None,
) -> Evaluation:
    """Score a stream of masks against ``truth``; the result depends neither on the order of images nor on ``workers``.

    Images are found by ``GroundTruth.find``, by id where one side has no names; those of the ground truth that the stream does not list
    count as without masks, unless ``options`` say otherwise. A few images are in memory at once. Masks without a score all have 1, and rank
    in the order of the stream [choice]. ``watch`` may wrap the images as they are done, for a progress bar.

    ``what`` and ``header`` as for ``Evaluator``. An image whose masks or maps cannot be used, of either side, goes to ``failures`` if
    given, and is not scored. Raises InputError if no image is found, two are the same one, sizes differ, only some masks have a score, the
    ground truth has nothing to find, or as ``sets`` does.
    """
    evaluator = Evaluator(truth, options, what=what, header=header)
    return evaluator.run(sets, workers or default_workers(), watch, failures)


class Evaluation:
    """The scores of one set of predictions.

    ``what`` names it; ``images`` are those scored, in order of id; ``counts`` tells how images were matched; ``truth_masks`` and
    ``predicted_masks`` are how many masks those images have; ``warnings`` are lines for a person. Scores are fractions, None where
    undefined.
    """

    def __init__(
        self,
        truth: GroundTruth | LabelTruth,
        options: EvalOptions,
        what: str,
        scores: DetectionScores | HierarchyScores | SemanticScores,
        sizes: dict[int, tuple[int, int]],
        counts: ImageCounts,
        warnings: tuple[str, ...],
    ) -> None:
        self.options = options
        self.what = what
        self.counts = counts
        self.warnings = warnings
        self._scores = scores
        self._length = len(truth)
        self._positions = np.array(sorted(sizes), np.int64)
        self._sizes = sizes
        self.images: tuple[Image, ...] = tuple(truth.images[k] for k in self._positions.tolist())
        self.truth_masks = sum(size[0] for size in sizes.values())
        self.predicted_masks = sum(size[1] for size in sizes.values())
        self._values: Float64 | None = None
        self._replicates: tuple[tuple[int, int], Float64] | None = None

    @property
    def semantic(self) -> SemanticScores | None:
        """The scores of classes, of "miou" alone."""
        return self._scores if isinstance(self._scores, SemanticScores) else None

    @property
    def detection(self) -> DetectionScores | None:
        """The scores of masks, of "ar" and "ap" alone."""
        return self._scores if isinstance(self._scores, DetectionScores) else None

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics, in the order to show them in."""
        return self._scores.names

    def metrics(self) -> dict[str, float | None]:
        """Every metric."""
        if self._values is None:
            weights = np.zeros((self._length, 1), np.int32)
            weights[self._positions] = 1
            self._values = self._scores.values(weights)[:, 0]
        return dict(zip(self.names, map(_defined, self._values.tolist()), strict=True))

    def intervals(self, n: int = 1000, seed: int = 0, confidence: float = 0.95) -> dict[str, tuple[float, float] | None]:
        """Every metric's percentile interval from ``n`` resamples of the images; None where it has none.

        ``confidence`` is the share of resamples within. Maxima of trees have no interval: the bootstrap is no guide to extremes.
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
        values = self._scores.values_by_image(self._length)
        for position, image in zip(self._positions.tolist(), self.images, strict=True):
            truth, predictions = self._sizes[position]
            metrics = dict(zip(self.names, map(_defined, values[:, position].tolist()), strict=True))
            yield {
                "file_name": image.file_name, "id": image.id, "ground_truth": truth, "predictions": predictions, "metrics": metrics,
            }  # fmt: skip

    def _resampled(self, n: int, seed: int) -> Float64:
        """(metrics, n)."""
        if self._replicates is None or self._replicates[0] != (n, seed):
            self._replicates = (n, seed), replicate(self._scores, self._positions, self._length, n, seed)
        return self._replicates[1]

    def _intervals(self, values: Float64, confidence: float) -> dict[str, tuple[float, float] | None]:
        return {
            name: interval(row, confidence) if name in self._scores.resampled else None
            for name, row in zip(self.names, values, strict=True)
        }


def _check_searched(truth: GroundTruth, searched: Mapping[int, Searched]) -> None:
    for image in truth.images:
        if not searched[image.id].said:
            raise InputError(
                f"{truth.what}: image {image.id} has no neg_category_ids, which others have: nobody can tell which categories it was "
                "searched for; leave --by-category out, or take a file of one kind"
            )


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
