"""Average recall from sums over images.

AR is the share of the ground truth's masks that are hit, averaged over IoU 0.50:0.05:0.95 (COCO). All it needs of an image are
two whole numbers for each area range and number of detections, so nothing of the detections is kept.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.matching import AREA_BITS, AREAS, THRESHOLDS, MatchedDetections
from ovskit.core.runtime.kernels import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int32]


class RecallSums:
    """For every image and group: hits, summed over thresholds, and masks counted, by area range.

    ``maxima`` are COCO's maxDets, ascending. Memory goes with the number of images (times the categories or annotators in
    each), whatever the number of detections.
    """

    def __init__(self, maxima: tuple[int, ...]) -> None:
        self.maxima = maxima
        self._rows = array("q")  # position, group, counted by area, hits by area and maximum
        self._width = 2 + AREAS + AREAS * len(maxima)

    def add(self, position: int, group: int, matched: MatchedDetections, within: tuple[int, ...]) -> None:
        """Take in the detections of the image at ``position`` for one group, of which the first ``within`` count at each maximum."""
        hits = [np.bitwise_count(matched.true[:count] & bits).sum() for bits in AREA_BITS for count in within]
        self._rows.extend([position, group, *matched.counted.tolist(), *(int(hit) for hit in hits)])

    @property
    def rows(self) -> tuple[Int64, Int64, Int64, Int64]:
        """Position (n,), group (n,), counted (n, 4) and hits (n, 4, maxima), all int64."""
        table = np.array(self._rows, np.int64).reshape(-1, self._width)
        return table[:, 0], table[:, 1], table[:, 2 : 2 + AREAS], table[:, 2 + AREAS :].reshape(-1, AREAS, len(self.maxima))

    def counted(self, weights: Weights, groups: int) -> Int64:
        """Masks counted, int64 (4, groups, b), where the image at position k counts ``weights[k]`` (images, b) times."""
        position, group, counted, _ = self.rows
        return _weighted(position, group, counted, weights, groups)

    def recall(self, weights: Weights, groups: int) -> Float64:
        """Average recall of every group, float64 (4, maxima, groups, b) in [0, 1]; NaN where nothing is counted."""
        position, group, counted, hits = self.rows
        below = _weighted(position, group, counted, weights, groups)[:, None]
        above = _weighted(position, group, hits.reshape(len(hits), AREAS * len(self.maxima)), weights, groups)
        above = above.reshape(AREAS, len(self.maxima), groups, weights.shape[1])
        return ratio(above, np.broadcast_to(below * THRESHOLDS, above.shape))

    def recall_by_row(self) -> Float64:
        """Average recall of every row by itself, float64 (4, maxima, rows)."""
        _, _, counted, hits = self.rows
        return ratio(hits, np.broadcast_to(counted[:, :, None] * THRESHOLDS, hits.shape)).transpose(1, 2, 0)


def ratio(above: Int64, below: Int64) -> Float64:
    """``above`` / ``below`` where that is defined, else NaN."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _weighted(position: Int64, group: Int64, values: Int64, weights: Weights, groups: int) -> Int64:
    out = np.zeros((values.shape[1], groups, weights.shape[1]), np.int64)
    _add(position, group, np.ascontiguousarray(values), weights, out)
    return out


@njit(nogil=True, cache=True)
def _add(position: Int64, group: Int64, values: Int64, weights: Weights, out: Int64) -> None:
    for r in range(len(position)):
        for v in range(values.shape[1]):
            value = values[r, v]
            if value:
                for b in range(weights.shape[1]):
                    out[v, group[r], b] += value * weights[position[r], b]
