"""Average precision of any number of detections in bounded memory.

COCO's AP ranks the detections of all images at once. Instead of holding them, one small record of each goes to an unnamed
temporary file. Precision matters only at true positives, of which there are at most as many (for each threshold) as the ground
truth has masks, and that is in memory: they are collected and sorted, then every false positive is counted at the first
true positive behind it, in passes over the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.eval import precision_kernels as kernels
from ovskit.core.eval.matching import THRESHOLDS, MatchedDetections
from ovskit.core.formats.streams.spool import Spool

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int32]
Records = npt.NDArray[Any]

# COCO's recall points 0, 0.01, … 1, as pycocotools rounds them.
RECALL_POINTS = np.linspace(0.0, 1.0, 101)

# One detection. They are ranked by key (minus the score), position of the image, rank within it; bits as in ``MatchedDetections``.
RECORD = np.dtype([("key", "f8"), ("true", "u8"), ("false", "u8"), ("position", "i4"), ("rank", "i4"), ("group", "i8")])
_CHUNK = 1 << 18  # records read at once
_ON_DISK = 1 << 24  # bytes; fewer stay in memory
_HELD = 1 << 24  # numbers that may be held to save counting them again


class PrecisionSpool:
    """Detections on disk, and their average precision for any weighting of the images."""

    def __init__(self) -> None:
        self._spool = Spool(advice="set TMPDIR to where there is room", in_memory=_ON_DISK)
        self._found: Records | None = None

    def add(self, position: int, group: int, scores: Float64, matched: MatchedDetections) -> None:
        """Take in the detections of the image at ``position`` for one group, best first; ``scores`` (n,) descend.

        Raises OutputError if the temporary file cannot be written.
        """
        kept = np.flatnonzero(matched.true | matched.false)
        records = np.zeros(len(kept), RECORD)
        records["key"], records["rank"] = -scores[kept], kept
        records["true"], records["false"] = matched.true[kept], matched.false[kept]
        records["position"], records["group"] = position, group
        self._found = None
        self._spool.write(records.tobytes())

    def cells(self, bits: Sequence[int]) -> int:
        """How many 32-bit numbers ``precision`` needs for every column of its weights."""
        found = self._true_positives()["true"]
        return sum(int(np.count_nonzero(found & np.uint64(1 << bit))) for bit in bits)

    def precision(self, bits: Sequence[int], counted: Int64, weights: Weights) -> Iterator[Float64]:
        """Average precision (groups, b) in [0, 1] for each of ``bits`` in turn: the mean over 101 recall points.

        ``counted`` (4, groups, b) is the number of masks to be found, ``weights`` (images, b) how often each image counts;
        copies of a detection follow each other [choice]. NaN where nothing is to be found. As ``COCOeval.accumulate`` does it.
        """
        found = self._true_positives()
        groups, columns = counted.shape[1:]
        starts = np.searchsorted(found["group"], np.arange(groups + 1))
        held = [_prefix(found, bit) for bit in bits] if len(found) * len(bits) <= _HELD else None
        before = [np.zeros((self.cells([bit]), columns), np.int32) for bit in bits]  # false ones between true ones
        for chunk in self._chunks():
            place = np.empty(len(chunk), np.int64)
            kernels.find_places(
                chunk["key"], chunk["position"], chunk["rank"], chunk["group"],
                found["key"], found["position"], found["rank"], starts, place,
            )  # fmt: skip
            nearby = np.argsort(place, kind="stable")  # so that what is added to stays in the processor's cache
            chunk, place = chunk[nearby], place[nearby]
            for k, bit in enumerate(bits):
                prefix = _prefix(found, bit) if held is None else held[k]
                kernels.count_false(
                    chunk["false"], np.uint64(bit), chunk["position"], place, prefix, starts[chunk["group"] + 1], weights, before[k]
                )
        for k, bit in enumerate(bits):
            prefix = _prefix(found, bit) if held is None else held[k]
            positions = found["position"][np.diff(prefix) > 0]
            out = np.full((groups, columns), np.nan)
            kernels.average(positions, before[k], prefix[starts], weights, counted[bit // THRESHOLDS], RECALL_POINTS, out)
            yield out

    def _true_positives(self) -> Records:
        """All detections that are true positives anywhere, by group and then in order."""
        if self._found is None:
            found = np.concatenate([np.zeros(0, RECORD), *(chunk[chunk["true"] != 0] for chunk in self._chunks())])
            self._found = found[np.lexsort([found[name] for name in ("rank", "position", "key", "group")])]
        return self._found

    def _chunks(self) -> Iterator[Records]:
        file = self._spool.from_start()
        while data := file.read(_CHUNK * RECORD.itemsize):
            yield np.frombuffer(data, RECORD)


def average_precision_of_one(matched: MatchedDetections) -> Float64:
    """Average precision of one image's detections by themselves: (4, 10) by area range and threshold, NaN where nothing is to be
    found.
    """
    out = np.full((len(matched.counted), THRESHOLDS), np.nan)
    kernels.average_one(matched.true, matched.false, matched.counted, RECALL_POINTS, out)
    return out


def _prefix(found: Records, bit: int) -> Int32:
    """How many of ``found`` before each, and in all, have ``bit``: int32 (n + 1,)."""
    out = np.zeros(len(found) + 1, np.int32)
    np.cumsum((found["true"] & np.uint64(1 << bit)) != 0, out=out[1:])
    return out
