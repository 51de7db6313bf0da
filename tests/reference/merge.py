"""SOHES' global clustering as the paper tells it: scan every pair of neighbours, merge the best, start again.

Quadratic in the number of patches and meant to be read, not run on images. It shares no code with
``ovskit.core.cluster.merge``, but its definitions: a similarity is a cosine in float64 rounded to nine decimals, a
threshold is rounded alike, ties go to the lowest pair, and a zero vector has similarity 0 with everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DECIMALS = 9


@dataclass
class Merge:
    """One step: the partition before it, and the two regions merged, named by their lowest patch index."""

    before: npt.NDArray[np.int32]
    first: int
    second: int
    similarity: float


def cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], decimals: int | None = DECIMALS) -> float:
    """Cosine of two vectors, rounded unless ``decimals`` is None."""
    norms = math.sqrt(a @ a) * math.sqrt(b @ b)
    value = 0.0 if norms == 0 else min(1.0, max(-1.0, float(a @ b) / norms))
    return value if decimals is None else round(value, decimals)


def neighbours(labels: npt.NDArray[np.int32], connectivity: int) -> set[tuple[int, int]]:
    """All pairs (lower, higher) of labels that touch."""
    height, width = labels.shape
    offsets = [(0, 1), (1, 0)] + ([(1, 1), (1, -1)] if connectivity == 8 else [])
    pairs = set()
    for row in range(height):
        for column in range(width):
            for down, right in offsets:
                if row + down < height and 0 <= column + right < width:
                    here, there = int(labels[row, column]), int(labels[row + down, column + right])
                    if here != there:
                        pairs.add((min(here, there), max(here, there)))
    return pairs


def merges(features: npt.NDArray[np.floating], connectivity: int = 4, decimals: int | None = DECIMALS) -> Iterator[Merge]:
    """Every merge down to one region."""
    height, width, channels = features.shape
    labels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    sums = dict(enumerate(features.reshape(-1, channels).astype(np.float64)))
    while len(sums) > 1:
        similarity = {pair: cosine(sums[pair[0]], sums[pair[1]], decimals) for pair in neighbours(labels, connectivity)}
        first, second = max(similarity, key=lambda pair: (similarity[pair], -pair[0], -pair[1]))
        yield Merge(labels.copy(), first, second, similarity[first, second])
        labels[labels == second] = first
        sums[first] = sums[first] + sums.pop(second)


def partitions(
    features: npt.NDArray[np.floating], thresholds: Sequence[float], connectivity: int = 4, decimals: int | None = DECIMALS
) -> list[npt.NDArray[np.int32]]:
    """The partition at each of descending thresholds: recorded when the best similarity first falls below it."""
    waiting = [threshold if decimals is None else round(threshold, decimals) for threshold in thresholds]
    recorded = []
    for merge in merges(features, connectivity, decimals):
        while waiting and merge.similarity < waiting[0]:
            recorded.append(merge.before)
            waiting.pop(0)
        if not waiting:
            return recorded
    everything = np.zeros(features.shape[:2], np.int32)  # never below the rest: merged into one
    return recorded + [everything] * len(waiting)
