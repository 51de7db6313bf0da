"""How well a forest of masks agrees with the ground truth's; the measure is defined in ``eval.ancestor_pairs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ovskit.core.eval.metric import Metric
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options

if TYPE_CHECKING:
    from ovskit.core.eval.ancestor_pairs import HierarchyScores
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.formats.truth.ground_truth import GroundTruth


class HierarchyOptions(Options):
    """The metric has no options."""


class Hierarchy(Metric):
    """``--metric hierarchy``."""

    name = "hierarchy"

    def __init__(self, options: HierarchyOptions | None = None) -> None:
        self._options = options or HierarchyOptions()

    @property
    def options(self) -> HierarchyOptions:
        return self._options

    def scores(self, truth: GroundTruth, header: MasksHeader, what: str) -> HierarchyScores:
        from ovskit.core.eval.ancestor_pairs import HierarchyScores

        return HierarchyScores()

    def settings(self, truth: GroundTruth) -> dict[str, Any]:
        # Without effect here; readers of the JSON have had them since the first version.
        return {"max": [1, 10, 1000], "by_category": False, "per_annotator": False}


METHOD = Method("hierarchy", "Ancestor pairs, and statistics of the forests.", HierarchyOptions, Hierarchy)
