"""COCO's matching: which of an image's masks are hits at which IoU, for objects of which size.

As pycocotools' ``COCOeval.evaluateImg`` does it, area ranges and thresholds at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.pairs import Pairs
from ovskit.core.runtime.kernels import njit

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

# COCO's: 0.50, 0.55, … 0.95, as pycocotools rounds them.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Ranges of area in native pixels, both ends included: all, small, medium, large.
AREA_NAMES = ("all", "S", "M", "L")
_LOWEST = np.array([0.0, 0.0, 32.0**2, 96.0**2])
_HIGHEST = np.array([1e10, 32.0**2, 96.0**2, 1e10])

AREAS, THRESHOLDS = len(AREA_NAMES), len(IOU_THRESHOLDS)
# Bit ``a * THRESHOLDS + t`` of a detection's bits belongs to area range a and threshold t.
AREA_BITS = np.array([((1 << THRESHOLDS) - 1) << (a * THRESHOLDS) for a in range(AREAS)], np.uint64)


@dataclass(frozen=True, slots=True)
class MatchedDetections:
    """What became of the detections of one image, in their order.

    Bit ``a * 10 + t`` of ``true`` (n,) uint64 says that the detection is a true positive for area range a at threshold t, of
    ``false`` that it is a false positive; where neither is set it is ignored. ``counted`` (4,) int64 is the number of ground
    truth masks that are not ignored in each area range.
    """

    true: UInt64
    false: UInt64
    counted: Int64


def match(pairs: Pairs, areas: Float64, truth_areas: Float64, crowd: Bool) -> MatchedDetections:
    """Match the detections of one image, best first, with its ground truth (COCO's rules, class by class or without classes).

    ``pairs`` are those of n detections, by descending score, and m masks whose IoU, with COCO's rule for crowds, is
    ``IOU_THRESHOLDS[0]`` or more; ``areas`` (n,) the detections' areas in
    pixels, ``truth_areas`` (m,) what the annotations state, ``crowd`` (m,). Every detection takes the free mask of the highest
    IoU at or above the threshold, of equal ones the last; a mask of the area range goes before one that is ignored. Ignored
    are crowds, which match any number of detections, and masks outside of the range. A detection matched to an ignored mask,
    or unmatched and itself outside of the range, is ignored. (An annotation with id 0 is one like any other; pycocotools takes a match with
    it for no match.) Memory goes with n, m and the number of pairs.
    """
    found = MatchedDetections(np.zeros(len(areas), np.uint64), np.zeros(len(areas), np.uint64), np.zeros(AREAS, np.int64))
    _match(
        pairs.offsets, pairs.column, pairs.iou, areas, truth_areas, crowd, IOU_THRESHOLDS, _LOWEST, _HIGHEST, AREA_BITS,
        found.true, found.false, found.counted,
    )  # fmt: skip
    return found


@njit(nogil=True, cache=True)
def _match(
    offsets: Int64,
    partner: Int64,
    value: Float64,
    areas: Float64,
    truth_areas: Float64,
    crowd: Bool,
    thresholds: Float64,
    lowest: Float64,
    highest: Float64,
    area_bits: UInt64,
    true: UInt64,
    false: UInt64,
    counted: Int64,
) -> None:
    n, m = len(areas), len(truth_areas)
    steps = len(thresholds)
    ignored = np.empty(m, np.bool_)
    taken = np.empty((steps, m), np.bool_)
    for a in range(len(lowest)):
        taken[:] = False
        for j in range(m):
            ignored[j] = crowd[j] or truth_areas[j] < lowest[a] or truth_areas[j] > highest[a]
            counted[a] += not ignored[j]
        for i in range(n):
            outside = areas[i] < lowest[a] or areas[i] > highest[a]
            first, last = offsets[i], offsets[i + 1]
            if first == last:
                if not outside:
                    false[i] |= area_bits[a]
                continue
            for t in range(steps):
                best = -1
                bar = min(thresholds[t], 1 - 1e-10)
                for k in range(first, last):
                    j = partner[k]
                    if not ignored[j] and not taken[t, j] and value[k] >= bar:
                        bar = value[k]
                        best = j
                bit = np.uint64(1) << np.uint64(a * steps + t)
                if best >= 0:
                    taken[t, best] = True
                    true[i] |= bit
                    continue
                for k in range(first, last):
                    j = partner[k]
                    if ignored[j] and (crowd[j] or not taken[t, j]) and value[k] >= bar:
                        bar = value[k]
                        best = j
                if best >= 0:
                    taken[t, best] = True
                elif not outside:
                    false[i] |= bit
