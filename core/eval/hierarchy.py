"""How well a forest of masks agrees with the ground truth's; the measure is in ``eval.ancestor_pairs``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovskit.core.eval.metric import Metric

if TYPE_CHECKING:
    from ovskit.core.eval.ancestor_pairs import HierarchyScores
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.formats.truth.ground_truth import GroundTruth


@dataclass(frozen=True, slots=True)
class HierarchyOptions:
    """It has none."""


class Hierarchy(Metric):
    """``--metric hierarchy``."""

    name = "hierarchy"
    Options = HierarchyOptions
    refused = dict.fromkeys(
        ("by_category", "per_annotator"),
        "--metric hierarchy knows neither categories nor annotators: leave --by-category and --per-annotator out",
    )

    def __init__(self, options: HierarchyOptions = HierarchyOptions()) -> None:
        self._options = options

    @property
    def options(self) -> HierarchyOptions:
        return self._options

    def scores(self, truth: GroundTruth, header: MasksHeader, what: str) -> HierarchyScores:
        from ovskit.core.eval.ancestor_pairs import HierarchyScores

        return HierarchyScores()

    def settings(self, truth: GroundTruth) -> dict[str, Any]:
        # Of no effect here; readers of the JSON have had them since the first version.
        return {"max": [1, 10, 1000], "by_category": False, "per_annotator": False}
