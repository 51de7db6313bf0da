"""Average recall as COCO defines it, and AP beside it: AR@k for every maximum, AR_S, AR_M and AR_L by size, and AP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovskit.core.eval.detection_metric import DetectionMetric, DetectionOptions
from ovskit.core.runtime.methods import Method

if TYPE_CHECKING:
    from ovskit.core.eval.detection import Plan


class ArOptions(DetectionOptions):
    """The options of ``DetectionOptions``; AR is given for each of the ``maxima``, sizes and AP use the largest."""


class AverageRecall(DetectionMetric):
    """``--metric ar``."""

    name = "ar"

    def plan(self, maxima: Sequence[int]) -> Plan:
        """As ``DetectionMetric.plan``."""
        from ovskit.core.eval.detection import Plan, all_thresholds
        from ovskit.core.eval.matching import AREA_NAMES, AREAS

        last = len(maxima) - 1
        recalls = {f"AR@{most}": (0, k) for k, most in enumerate(maxima)}
        recalls |= {f"AR_{AREA_NAMES[a]}": (a, last) for a in range(1, AREAS)}
        return Plan(recalls, {"AP": all_thresholds(0)})


METHOD = Method("ar", "Average recall, and AP.", ArOptions, AverageRecall)
