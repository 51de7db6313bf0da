"""AR and AP of one set of predictions: images go in one by one, scores for any weighting of the images come out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.categories import category_warnings
from ovskit.core.eval.groups import Annotator, Groups
from ovskit.core.eval.matching import AREAS, IOU_THRESHOLDS, THRESHOLDS, MatchedDetections, match
from ovskit.core.eval.metric import Row, Scores
from ovskit.core.eval.precision import PrecisionSpool, average_precision_of_one
from ovskit.core.eval.recall import RecallSums
from ovskit.core.formats.coco.lvis import frequencies
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.masks.pairs import overlaps
from ovskit.core.masks.runs import chosen, table_of
from ovskit.core.records import MaskSet, RunTable
from ovskit.core.runtime.errors import InputError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rows of a table are: recalls first, each of an area range and a maximum (which of them), then precisions, each the mean
    over some area ranges and thresholds (the bits of ``MatchedDetections``). ``by_frequency``: by LVIS' rule, AP is also given for the
    categories of each frequency, "r", "c" and "f"."""

    recalls: Mapping[str, tuple[int, int]]
    precisions: Mapping[str, tuple[int, ...]]
    by_frequency: bool = False


def all_thresholds(area: int) -> tuple[int, ...]:
    """The bits of an area range at all thresholds."""
    return tuple(range(area * THRESHOLDS, (area + 1) * THRESHOLDS))


def one_threshold(iou: float) -> tuple[int, ...]:
    """The bit of all areas at one threshold."""
    return (int(np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou))[0]),)


@dataclass(frozen=True, slots=True)
class Unit:
    """The matches of one image for one annotator and one category; ``scores`` descend, as ``matched`` does."""

    annotator: Annotator
    category: int | None
    scores: Float64
    matched: MatchedDetections
    within: tuple[int, ...]  # how many of them count at each of the maxima


@dataclass(frozen=True, slots=True)
class MatchedImage:
    """One image's units, the annotators that its ground truth names, how many predictions are of categories that the image was not searched
    for, and how many masks the ground truth has, and the predictions with and without a score."""

    units: tuple[Unit, ...]
    annotators: frozenset[Annotator]
    unknown: int
    truth: int
    with_score: int
    without_score: int


class DetectionScores(Scores):
    """AR and AP as COCO defines them, from sums and a temporary file.

    ``maxima``: numbers of detections an image may have, ascending; sizes and AP go by the largest. ``plan`` says what is computed, and
    ``header`` is that of the predictions' file, for its categories.

    For images of LVIS (``GroundTruth.searched``) its rule holds by category (Gupta et al. 2019, section 3, and the ``lvis`` package):
    of the ``maxima`` best of an image, now of all categories together, those count that are of a category that the image has or
    was searched for in vain; where not all of a category has a mask, what is matched with none is ignored. Empty masks are
    left out on both sides. AP is also given over the categories of each frequency, "r", "c" and "f". Crowds, which LVIS does not have, stay
    COCO's [choice].
    """

    def __init__(
        self,
        truth: GroundTruth,
        maxima: tuple[int, ...],
        plan: Plan,
        *,
        by_category: bool,
        per_annotator: bool,
        header: MasksHeader,
    ) -> None:
        self._truth = truth
        self._header = header
        self.by_category = by_category
        self.per_annotator = per_annotator
        self.maxima = maxima
        self._searched = truth.searched if by_category else None
        self._unsearched = truth.searched is not None and not by_category
        self._unknown = self._true_masks = self._with_score = self._without_score = 0
        self._groups = Groups()
        self._recalls = RecallSums(maxima)
        self._spool = PrecisionSpool()
        self._precisions: list[tuple[float, ...]] = []  # AP of each row of the sums by itself
        self._annotators: set[Annotator] = set()
        self._true: set[int | None] = set()  # categories of masks that count, and of predictions
        self._predicted: set[int | None] = set()
        self._of_recall = dict(plan.recalls)
        self._of_precision = dict(plan.precisions)
        self._only: dict[str, Set[int]] = {}  # a precision of some categories alone
        if plan.by_frequency and self._searched is not None:
            self._only = {f"AP{letter}": categories for letter, categories in frequencies(truth.categories).items()}
            self._of_precision |= dict.fromkeys(self._only, all_thresholds(0))
        self._rows = tuple(map(Row, (*self._of_recall, *self._of_precision)))

    @property
    def rows(self) -> tuple[Row, ...]:
        return self._rows

    def work(self, truth: MaskSet, predictions: MaskSet) -> MatchedImage:
        """Match one image. Independent of other images, so it may run in any thread. Raises InputError."""
        everyone: dict[Annotator, Int64] = {None: np.arange(len(truth.masks), dtype=np.int64)}
        annotators = _annotators(truth) if self.per_annotator else everyone
        scores = _scores(predictions)
        tables = table_of(truth), table_of(predictions)
        units: list[Unit] = []
        unknown = 0
        if self.by_category:
            of_truth, of_predictions = _by_category(truth), _by_category(predictions)
            rank, partial = None, frozenset[int]()
            if self._searched is not None:
                of_truth = _chosen(of_truth, [mask.extra.get("area", mask.area) > 0 for mask in truth.masks])
                of_predictions = _chosen(of_predictions, [mask.area > 0 for mask in predictions.masks])
                image = self._searched[truth.image.id]
                rank, partial = _ranks(scores), image.partial
                known = {k: found for k, found in of_predictions.items() if k in of_truth or k in image.absent}
                unknown = sum(map(len, of_predictions.values())) - sum(map(len, known.values()))
                of_predictions = known
            for category in sorted({*of_truth, *of_predictions}):
                members = of_truth.get(category, []), of_predictions.get(category, [])
                found = self._units(truth, members[0], predictions, members[1], tables, scores, annotators, category, rank)
                units += map(_forgiven, found) if category in partial else found
        else:
            units += self._units(truth, _all(truth), predictions, _all(predictions), tables, scores, annotators, None)
        named = annotators if self.per_annotator else (mask.extra.get("annotator") for mask in truth.masks)
        with_score = sum(mask.score is not None for mask in predictions.masks)
        names = frozenset(name for name in named if isinstance(name, int | str))
        return MatchedImage(tuple(units), names, unknown, len(truth.masks), with_score, len(predictions.masks) - with_score)

    def _units(
        self,
        truth: MaskSet,
        of_truth: list[int],
        predictions: MaskSet,
        of_predictions: list[int],
        tables: tuple[RunTable, RunTable],
        ranking: Float64,
        annotators: Mapping[Annotator, Int64],
        category: int | None,
        rank: Int64 | None = None,
    ) -> Iterator[Unit]:
        """Match some masks of the predictions with some of the ground truth, both in COCO's order, for each annotator.

        ``tables`` are the runs of all masks of both. ``ranking`` is the score of every prediction. The maxima are of these predictions,
        or of all of the image where ``rank`` says which place each has there.
        """
        scores = ranking[of_predictions]
        order = np.argsort(-scores, kind="stable")
        places = np.arange(len(order)) if rank is None else rank[of_predictions][order]
        within = tuple(np.searchsorted(places, self.maxima).tolist())
        order = order[: within[-1]]
        found = chosen(tables[1], np.array(of_predictions, np.int64)[order])
        masks = [truth.masks[k] for k in of_truth]
        crowd = np.array([mask.iscrowd for mask in masks], np.int64)
        areas = np.array([mask.extra.get("area", mask.area) for mask in masks], np.float64)
        pairs = overlaps(found, chosen(tables[0], of_truth), float(IOU_THRESHOLDS[0]), crowd).pairs
        own = found.areas.astype(np.float64)
        for annotator, members in annotators.items():
            columns = np.flatnonzero(np.isin(np.array(of_truth, np.int64), members))
            matched = match(pairs.of_columns(columns), own, areas[columns], crowd[columns] != 0)
            yield Unit(annotator, category, scores[order], matched, within)

    def add(self, position: int, image: MatchedImage) -> None:
        """Take in the image at ``position`` of the ground truth."""
        self._annotators |= image.annotators
        self._unknown += image.unknown
        self._true_masks += image.truth
        self._with_score += image.with_score
        self._without_score += image.without_score
        if self.per_annotator:
            for annotator in image.annotators:
                self._groups.saw(annotator, position)
        for unit in image.units:
            if unit.matched.counted.any():
                self._true.add(unit.category)
            if len(unit.scores):
                self._predicted.add(unit.category)
            group = self._groups.index(unit.annotator, unit.category)
            self._spool.add(position, group, unit.scores, unit.matched)
            if unit.matched.counted.any():
                self._recalls.add(position, group, unit.matched, unit.within)
                precision = average_precision_of_one(unit.matched).ravel()
                self._precisions.append(tuple(float(precision[list(bits)].mean()) for bits in self._of_precision.values()))

    def check(self, truth: str, predictions: str) -> None:
        """Raises InputError if some masks have a score and some have none, if annotators are to be told apart and the ground truth names
        none, or if none of its masks counts."""
        if self._with_score and self._without_score:
            raise InputError(
                f"{predictions}: {self._without_score} of {self._with_score + self._without_score} masks have no score and cannot be "
                "ranked: give a score to all, or to none"
            )
        if self.per_annotator and not self._annotators:
            raise InputError(f'{truth} has no annotation with an "annotator": leave --per-annotator out')
        if self._true_masks and not self._true:
            empty = "" if self._searched is None else " or empty"
            raise InputError(
                f"{truth}: all masks of the images that are scored ({self._true_masks}) are crowds (iscrowd 1){empty}, which are neither "
                "found nor missed: there is nothing to score"
            )

    def warnings(self, predictions: str) -> list[str]:
        """What a reader of the scores should know."""
        found = []
        if len(self._annotators) > 1 and not self.per_annotator:
            found.append(
                f"the ground truth has {len(self._annotators)} annotators, whose masks are scored as if they were one's; "
                "--per-annotator scores each by itself"
            )
        if not self._true:
            found.append("the ground truth has no mask on any image that is scored: every score is undefined")
        elif self.by_category and self._predicted and not self._predicted & self._true:
            found.append("no predicted category_id is one of the ground truth's; leave --by-category out to score without categories")
        if self._unknown and not self._predicted:
            found.append(f"none of the {self._unknown} masks is of a category that its image was searched for")
        if self._unsearched:
            found.append(
                "the ground truth is LVIS, which has masks only of the categories that an image was searched for; so AP without "
                "--by-category counts right masks as wrong and means nothing: use AR"
            )
        if self._without_score:
            found.append(f"{predictions}: its masks have no score; they rank in the order of the stream, all with score 1")
        if self.by_category:
            found += category_warnings(self._header, self._truth, self._true, self._predicted, predictions)
        return found

    def cells(self) -> int:
        """How many numbers ``values`` holds for every column of its weights."""
        recalls = (AREAS + AREAS * len(self._recalls.maxima)) * len(self._groups) * 2
        return self._spool.cells(self._all_bits()) + 2 * recalls + 101

    def values(self, weights: Weights) -> Float64:
        """Every metric, float64 (names, b) in [0, 1], where the image at position k counts ``weights[k]`` (images, b) times."""
        images = self._groups.images(weights)
        out = np.full((len(self.rows), weights.shape[1]), np.nan)
        if not len(self._groups):
            return out
        recall = self._recalls.recall(weights, len(self._groups))
        for k, (area, most) in enumerate(self._of_recall.values()):
            out[k] = self._groups.average(recall[area, most], images)
        counted = self._recalls.counted(weights, len(self._groups))
        by_group = np.zeros((len(self._of_precision), len(self._groups), weights.shape[1]))
        bits = self._all_bits()
        for bit, precision in zip(bits, self._spool.precision(bits, counted, weights), strict=True):
            for k, wanted in enumerate(self._of_precision.values()):
                if bit in wanted:
                    by_group[k] += precision / len(wanted)
        for k, name in enumerate(self._of_precision):
            if name in self._only:
                by_group[k, ~self._groups.of(self._only[name])] = np.nan
            out[len(self._of_recall) + k] = self._groups.average(by_group[k], images)
        return out

    def values_by_image(self, images: int) -> Float64:
        """Every metric of every image by itself, float64 (names, images); NaN where it has no mask that counts."""
        position, group, _, _ = self._recalls.rows
        recall = self._recalls.recall_by_row()
        rows = [recall[area, most] for area, most in self._of_recall.values()]
        precision = np.array(self._precisions, np.float64).reshape(len(position), len(self._of_precision)).T
        for k, name in enumerate(self._of_precision):
            if name in self._only:
                precision[k, ~self._groups.of(self._only[name])[group]] = np.nan
        rows += list(precision)
        return np.array([self._groups.average_by_image(row, group, position, images) for row in rows])

    def _all_bits(self) -> list[int]:
        return sorted({bit for bits in self._of_precision.values() for bit in bits})


def check_searched(truth: GroundTruth) -> None:
    """Raises InputError for images of LVIS that do not say what they were searched for."""
    if truth.searched is None:
        return
    for image in truth.images:
        if not truth.searched[image.id].said:
            raise InputError(
                f"{truth.what}: image {image.id} has no neg_category_ids, which others have: it is not known which categories it was "
                "searched for; leave --by-category out, or take a file of one kind"
            )


def _all(masks: MaskSet) -> list[int]:
    """All masks as pycocotools lists them without categories: category by category, which decides ties."""
    return sorted(range(len(masks.masks)), key=lambda k: masks.masks[k].category_id)


def _scores(masks: MaskSet) -> Float64:
    """What ranks the masks of one image. Raises InputError."""
    scores = np.array([1.0 if mask.score is None else mask.score for mask in masks.masks], np.float64)
    if not np.isfinite(scores).all():
        raise InputError(f"{masks.image.file_name}: a mask's score is not finite, so it cannot be ranked")
    return scores


def _ranks(scores: Float64) -> Int64:
    """The rank of each mask of an image among all of them, from 0."""
    rank = np.empty(len(scores), np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return rank


def _chosen(groups: Mapping[int, list[int]], wanted: Sequence[bool]) -> dict[int, list[int]]:
    """The members of ``groups`` that are ``wanted``, and the groups that are left."""
    found = {k: [i for i in group if wanted[i]] for k, group in groups.items()}
    return {k: group for k, group in found.items() if group}


def _forgiven(unit: Unit) -> Unit:
    """A unit without false positives."""
    return replace(unit, matched=replace(unit.matched, false=np.zeros_like(unit.matched.false)))


def _by_category(masks: MaskSet) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for k, mask in enumerate(masks.masks):
        found[mask.category_id].append(k)
    return found


def _annotators(truth: MaskSet) -> dict[Annotator, Int64]:
    """The masks of each annotator. Raises InputError for a mask without one."""
    found: dict[Annotator, list[int]] = defaultdict(list)
    for k, mask in enumerate(truth.masks):
        annotator = mask.extra.get("annotator")
        if type(annotator) not in (int, str):
            raise InputError(
                f'{truth.image.file_name}: annotation {mask.id} of the ground truth has no "annotator", a whole number or a name; '
                "leave --per-annotator out, or name an annotator for each annotation"
            )
        found[annotator].append(k)
    return {annotator: np.array(members, np.int64) for annotator, members in found.items()}
