"""Which masks of a ground truth a set of predictions finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovskit.core.masks.matching import match_masks
from ovskit.core.masks.pairs import Float64, Int64, overlaps
from ovskit.core.records import MaskSet
from ovskit.core.show.views import larger_first, order_by_area, runs_in_order


@dataclass(frozen=True, slots=True)
class TruthMatches:
    """What became of the ground truth's masks among the predictions of one image; both sides in ``larger_first`` order.

    For ground-truth mask g: ``partner[g]`` is the prediction it is paired with, -1 where it is missed; ``nearest[g]`` the partner, or for a
    missed mask the prediction of highest IoU, -1 where none touches it; ``iou[g]`` in [0, 1] that of ``nearest``. ``counted[g]`` is false
    for crowds: what has no single outline can be neither found nor missed.
    """

    partner: Int64
    nearest: Int64
    iou: Float64
    counted: np.ndarray

    @property
    def hits(self) -> int:
        """How many masks of the ground truth are found."""
        return int((self.partner >= 0).sum())

    @property
    def total(self) -> int:
        """How many there are to find."""
        return int(self.counted.sum())


@dataclass(frozen=True, slots=True)
class AnnotatorTruth:
    """One annotator's ground truth of an image, and what each set of predictions finds of it.

    ``annotator`` is None where the masks do not say whose they are.
    """

    annotator: str | None
    masks: MaskSet
    found: tuple[TruthMatches, ...]


def find_truth(predictions: MaskSet, truth: MaskSet, at: float = 0.5) -> TruthMatches:
    """Pair the masks of ``truth`` with those of ``predictions``, one to one, at IoU ``at`` or more (``match_masks``).

    All predictions take part, whatever is shown of them: for a pool without classes the question is whether the thing is
    in it. Crowds of the ground truth take no part [choice]. Raises InputError if two sizes differ.
    """
    counted = np.array([not mask.iscrowd for mask in larger_first(truth)], np.bool_)
    overlap = overlaps(runs_in_order(truth, order_by_area(truth)), runs_in_order(predictions, order_by_area(predictions)), at)
    partner = match_masks(overlap.pairs, counted)
    nearest, best = overlap.nearest.copy(), overlap.highest.copy()
    # A partner need not be the nearest, which another mask may have taken.
    paired = partner[overlap.pairs.row] == overlap.pairs.column
    nearest[overlap.pairs.row[paired]], best[overlap.pairs.row[paired]] = overlap.pairs.column[paired], overlap.pairs.iou[paired]
    return TruthMatches(partner, nearest, best, counted)


def by_annotator(truth: MaskSet) -> list[tuple[str | None, MaskSet]]:
    """The masks of each annotator (``extra["annotator"]``), numbers in their order before names; one entry if no annotator is stated."""
    groups: dict[object, list] = {}
    for mask in truth.masks:
        value = mask.extra.get("annotator")
        groups.setdefault(value if isinstance(value, int | float | str) else None, []).append(mask)
    if len(groups) < 2:
        return [(None, truth)]
    order = sorted(groups, key=lambda v: (v is not None, isinstance(v, str), v if isinstance(v, int | float) else 0, str(v)))
    return [(None if value is None else str(value), MaskSet(truth.image, tuple(groups[value]))) for value in order]


def judge(panels: Sequence[MaskSet | None], truth: MaskSet, at: float) -> tuple[AnnotatorTruth, ...]:
    """Every annotator's ground truth against every set of predictions; None, a file without the image, finds nothing."""
    none = MaskSet(truth.image, ())
    return tuple(
        AnnotatorTruth(annotator, masks, tuple(find_truth(panel or none, masks, at) for panel in panels))
        for annotator, masks in by_annotator(truth)
    )


def matched_masks(predictions: MaskSet, found: TruthMatches) -> MaskSet:
    """The predictions that are paired with a mask of the ground truth, larger first."""
    ordered = larger_first(predictions)
    paired = sorted(int(k) for k in found.partner if k >= 0)
    return MaskSet(predictions.image, tuple(ordered[k] for k in paired))
