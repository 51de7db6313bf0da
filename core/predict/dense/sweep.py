"""The threshold below which a pixel is background, chosen on images with ground truth: mIoU at every threshold of a grid in one pass.

Published thresholds differ from 0.1 to 0.95 between methods, and what is chosen on the images that are scored flatters; so choose it on a
split that is not. A pixel has the class that is most probable, or is background where that probability is below the threshold.

IoU needs no confusion matrix, only what each class has in common with the ground truth and what is predicted of it. Both are sums over
pixels whose probability reaches the threshold, so that histograms over the grid, one a class, give them for all thresholds together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovskit.core.records import Int32
from ovskit.core.runtime.errors import InputError, UsageError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SweepScores:
    """What each of the ``thresholds`` (k,), rising, gives: ``iou`` (classes, k) of every class, NaN where neither side has it;
    ``miou`` (k,), its mean over the classes that the ground truth has, and ``miou_strict`` (k,), over those that either side has. All are
    in [0, 1], as ``ovs-eval --metric miou`` defines them; NaN if no pixel counts."""

    thresholds: Float64
    iou: Float64
    miou: Float64
    miou_strict: Float64

    def best(self, *, strict: bool = False) -> float | None:
        """The threshold with the highest mIoU, the lowest of several [choice]; None if no pixel counts."""
        found = self.miou_strict if strict else self.miou
        return None if np.isnan(found).all() else float(self.thresholds[np.nanargmax(found)])


class ThresholdSweep:
    """Takes in predictions image by image (``add``), then gives ``scores``; it holds about 3 · classes · thresholds numbers.

    ``classes`` are the ids of all classes, ``background`` one of them, ``thresholds`` the grid. Raises UsageError for a background that is
    not a class, an id that is there twice or below 0, and for a grid that is empty or has NaN.
    """

    def __init__(self, classes: Sequence[int], background: int, thresholds: Sequence[float]) -> None:
        if background not in classes or len(set(classes)) < len(classes) or min(classes) < 0:
            raise UsageError(f"a sweep needs classes with different ids from 0, and {background}, the background, among them")
        self.thresholds = np.unique(np.asarray(thresholds, np.float64))
        if not len(self.thresholds) or np.isnan(self.thresholds).any():
            raise UsageError("a sweep needs one threshold or more, which are numbers")
        self._places = np.full(max(classes) + 1, -1, np.int64)
        self._places[list(classes)] = np.arange(len(classes))
        self._background = int(self._places[background])
        bins = len(self.thresholds) + 1
        self._truth = np.zeros(len(classes), np.int64)
        self._predicted = np.zeros((len(classes), bins), np.int64)
        self._common = np.zeros((len(classes), bins), np.int64)
        self._of_background = np.zeros(bins, np.int64)  # pixels whose true class is the background

    def add(self, best: npt.NDArray[np.integer], probability: npt.NDArray[np.floating], truth: Int32, *, ceiling: float = np.inf) -> None:
        """Take in an image: the ids of its ``best`` classes, their ``probability`` and the ids of the ``truth``, all (h, w); a pixel of the
        ground truth below 0 is void and counts nowhere.

        Probabilities and thresholds are compared in the type of the former, as ``probability < threshold`` does. A threshold above the
        ``ceiling`` is the ceiling in this image, as GroupViT has it with its largest score. Raises InputError for arrays of different
        shapes, ids that are not classes, or a probability that is NaN.
        """
        if not best.shape == probability.shape == truth.shape:
            raise InputError(f"a prediction of {best.shape}, its probabilities of {probability.shape} and a ground truth of {truth.shape}")
        counts = truth >= 0
        ours, true, chances = self._placed(best[counts]), self._placed(truth[counts]), probability[counts]
        if np.isnan(chances).any():
            raise InputError("a probability is not a number; the model's weights may be damaged")
        grid = self.thresholds.astype(chances.dtype)
        # How many thresholds a pixel reaches: with a ceiling that it reaches, all of them.
        reached = np.searchsorted(grid, chances, side="right")
        reached[chances >= np.asarray(ceiling, chances.dtype)] = len(grid)
        bins, size = len(grid) + 1, self._predicted.size
        cells = ours * bins + reached
        self._predicted += np.bincount(cells, minlength=size).reshape(self._predicted.shape)
        self._common += np.bincount(cells[ours == true], minlength=size).reshape(self._common.shape)
        self._truth += np.bincount(true, minlength=len(self._truth))
        self._of_background += np.bincount(reached[true == self._background], minlength=bins)

    def scores(self) -> SweepScores:
        """The scores of all images so far."""
        predicted, common = _reaching(self._predicted), _reaching(self._common)
        # What does not reach a threshold is background, whatever it would have been.
        below = self._predicted.sum() - predicted.sum(axis=0)
        true_below = self._of_background.sum() - _reaching(self._of_background[None])[0]
        predicted[self._background] += below
        common[self._background] += true_below
        union = self._truth[:, None] + predicted - common
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = np.where(union > 0, common / union, np.nan)
            there = (self._truth > 0)[:, None]
            miou = np.where(there, iou, 0).sum(axis=0) / there.sum(axis=0)
            strict = np.nansum(iou, axis=0) / (union > 0).sum(axis=0)
        return SweepScores(self.thresholds, iou, miou, strict)

    def _placed(self, ids: npt.NDArray[np.integer]) -> Int64:
        inside = (ids >= 0) & (ids < len(self._places))
        places = self._places[np.where(inside, ids, 0)]
        strange = ~inside | (places < 0)
        if strange.any():
            raise InputError(f"id {int(ids[strange][0])} is not one of the classes")
        return places


def _reaching(histogram: Int64) -> Int64:
    """(n, k): how many of each row's pixels reach each threshold, from how many reach a number of them, (n, k + 1)."""
    found: Int64 = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1][:, 1:].copy()
    return found
