"""What AR and AP have in common: options, ground truth and words. They differ in the rows of their table (``eval.ar``, ``eval.ap``)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovskit.core.eval.metric import Metric
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from ovskit.core.eval.detection import DetectionScores, Plan
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.formats.truth.ground_truth import GroundTruth

_MAXIMA = (1, 10, 1000)
# LVIS' max_dets, an image's masks of all categories together.
_LVIS_MAXIMA = (300,)


def numbers_of_masks(text: str) -> tuple[int, ...]:
    """``1,10,1000``: different whole numbers from 1 up, ascending."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len(set(words)) < len(words):
        raise ValueError("write different positive whole numbers, such as 1,10,1000")
    return tuple(sorted(int(word) for word in words))


class DetectionOptions(Options):
    """How masks are matched.

    ``maxima``: numbers of masks an image may have, the highest scores first; None is 1, 10 and 1,000, and for LVIS by category its own 300.
    ``by_category``: match within categories and average over them (COCO's useCats=1; for LVIS' ground truth by LVIS' rule, see
    ``DetectionScores``) instead of ignoring them. ``per_annotator``: score each annotator's masks by themselves, over the images that have
    some, and average, weighted by those numbers of images [choice].
    """

    maxima: tuple[int, ...] | None = option(
        None, "Numbers of masks that an image may have, the best first: AR@N for each; all else uses the largest.",
        flag="--max", metavar="N,N,…", parse=numbers_of_masks, shown="1,10,1000; 300 for LVIS by category", source="COCO",
    )  # fmt: skip
    by_category: bool = option(False, "Match within categories and average over them (COCO's useCats=1; LVIS by its own rule).", flag=True)
    per_annotator: bool = option(False, "Score each annotator's masks by themselves, then average.", flag=True)


class DetectionMetric(Metric):
    """AR or AP: masks that are found, by COCO's rules."""

    def __init__(self, options: DetectionOptions) -> None:
        self._options = options

    @property
    def options(self) -> DetectionOptions:
        return self._options

    @abstractmethod
    def plan(self, maxima: Sequence[int]) -> Plan:
        """The rows of the table, and what each is the mean of; ``maxima`` ascend."""

    def scores(self, truth: GroundTruth, header: MasksHeader, what: str) -> DetectionScores:
        """Raises InputError for categories that contradict the ground truth's, and for LVIS' ground truth that does not state for every
        image what it was searched for, where that matters."""
        from ovskit.core.eval.categories import check_categories
        from ovskit.core.eval.detection import DetectionScores, check_searched

        if self.options.by_category:
            check_categories(header, truth, what)
            check_searched(truth)
        maxima = self._maxima(truth)
        return DetectionScores(
            truth, maxima, self.plan(maxima), by_category=self.options.by_category, per_annotator=self.options.per_annotator, header=header
        )

    def settings(self, truth: GroundTruth) -> dict[str, Any]:
        found = {
            "max": list(self._maxima(truth)),
            "by_category": self.options.by_category,
            "per_annotator": self.options.per_annotator,
        }
        return found | ({"federated": True} if self._is_federated(truth) else {})

    def remarks(self, truth: GroundTruth, scores: DetectionScores) -> Sequence[str]:
        return ["LVIS' rule for categories that an image was not searched for"] if self._is_federated(truth) else []

    def _is_federated(self, truth: GroundTruth) -> bool:
        return self.options.by_category and truth.searched is not None

    def _maxima(self, truth: GroundTruth) -> tuple[int, ...]:
        return tuple(sorted(self.options.maxima or (_LVIS_MAXIMA if self._is_federated(truth) else _MAXIMA)))
