"""Average precision as COCO defines it: AP, AP50, AP75, by size AP_S, AP_M and AP_L; for LVIS also APr, APc and APf, AP over rare, common
and frequent categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovskit.core.eval.detection_metric import DetectionMetric, DetectionOptions
from ovskit.core.runtime.methods import Method

if TYPE_CHECKING:
    from ovskit.core.eval.detection import Plan


class ApOptions(DetectionOptions):
    """The options of ``DetectionOptions``; AP uses the largest of the ``maxima``."""


class AveragePrecision(DetectionMetric):
    """``--metric ap``."""

    name = "ap"

    def plan(self, maxima: Sequence[int]) -> Plan:
        """As ``DetectionMetric.plan``."""
        from ovskit.core.eval.detection import Plan, all_thresholds, one_threshold
        from ovskit.core.eval.matching import AREA_NAMES, AREAS

        precisions = {"AP": all_thresholds(0), "AP50": one_threshold(0.5), "AP75": one_threshold(0.75)}
        precisions |= {f"AP_{AREA_NAMES[a]}": all_thresholds(a) for a in range(1, AREAS)}
        return Plan({}, precisions, by_frequency=True)


METHOD = Method("ap", "Average precision.", ApOptions, AveragePrecision)
