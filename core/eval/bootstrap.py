"""Intervals by bootstrap over images.

A resample draws as many images as there are, with replacement; a metric is computed again from all that is drawn. Percentile
intervals (Efron & Tibshirani 1993, chapter 13). Two evaluations of the same images draw the same ones, so a difference is paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.metric import Scores

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int32]

_CELLS = 1 << 25  # numbers held at once
_MOST = 128  # resamples worked on at once: more gain nothing


def resamples(positions: Int64, images: int, count: int, seed: int, block: int) -> Iterator[Weights]:
    """``count`` resamples of ``positions``, in blocks: int32 (images, b), how often each of ``images`` is drawn.

    The draws depend on ``seed``, ``count`` and the number of positions, never on ``block``.
    """
    random = np.random.default_rng(seed)
    for start in range(0, count, block):
        columns = min(block, count - start)
        weights = np.zeros((images, columns), np.int32)
        for b in range(columns):
            drawn = random.integers(0, len(positions), len(positions))
            weights[positions, b] = np.bincount(drawn, minlength=len(positions))
        yield weights


def replicate(scores: Scores, positions: Int64, images: int, count: int, seed: int) -> Float64:
    """Every metric of ``count`` resamples: float64 (metrics, count), NaN where one is undefined. Memory is bounded by blocks."""
    block = max(1, min(_MOST, _CELLS // max(1, scores.cells() + images)))
    return np.concatenate([scores.values(weights) for weights in resamples(positions, images, count, seed, block)], axis=1)


def interval(values: Float64, confidence: float) -> tuple[float, float] | None:
    """The percentile interval of ``values`` (n,) that holds the middle share ``confidence``; undefined values are left out, None where all
    are."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)
