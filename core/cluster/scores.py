"""How alike a region's patches are: the mean cosine of each to the region's feature, for every region of every partition.

With f the features of a region's n patches, F their sum and U the sum of f/|f|, the mean is U·F / (n |F|). F and U are
additive along the tree of regions: patches are summed once, for the finest partition, and coarser regions add up finer
ones. Regions of two and more patches are at most half as many as patches, so both sums fit into the merge's buffer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.compiled import compiled
from ovskit.core.cluster.float16 import place_bits, rebias
from ovskit.core.cluster.inner_products import dot
from ovskit.core.records import Float, Int32


def region_scores(labels: Int32, sizes: Int32, features: Float, buffer: Float) -> Float:
    """Scores float32 (t, n) in [−1, 1] at every (partition, label) that is a region, anything elsewhere.

    ``labels`` (t, n) are nested partitions of n patches, finest first, each region named by its lowest patch; ``sizes``
    (t, n) its number of patches at its name, 0 elsewhere; ``features`` (n, c) float16 or float32, finite; ``buffer`` at
    least n·c float32, overwritten. A zero vector has cosine 0 with everything [choice], so a region of them scores 0.
    """
    levels, n = labels.shape
    channels = features.shape[1]
    half = max(1, n // 2)
    if n == 1:
        buffer = np.empty(2 * channels, np.float32)
    sums = buffer[: half * channels].reshape(half, channels)
    units = buffer[half * channels : 2 * half * channels].reshape(half, channels)
    sums[:] = 0
    units[:] = 0
    row = np.full(n, -1, np.int32)  # where a region of two or more patches has its sums, at its name
    free = np.arange(half - 1, -1, -1, dtype=np.int32)
    top = np.array([half])
    scores = np.zeros((levels, n), np.float32)
    singles = np.arange(n, dtype=np.int32)
    scratch = np.empty(channels, np.float32)
    precise = np.empty(channels, np.float64)
    is_half = features.dtype == np.float16
    bits = np.ascontiguousarray(features).view(np.uint16) if is_half else np.empty((1, channels), np.uint16)
    plain = np.empty((1, channels), np.float32) if is_half else np.ascontiguousarray(features)
    for t in range(levels):
        if t:
            _join_rows(labels[t - 1], labels[t], row, free, top, sums, units)
        alone = sizes[t][labels[t][singles]] == 1
        joining, singles = singles[~alone], singles[alone]
        _add_patches(joining, labels[t], is_half, bits, plain, scratch.view(np.uint32), scratch, precise, row, free, top, sums, units)
        _score(sizes[t], row, sums, units, precise, scores[t])
        scores[t][singles] = scores[t - 1][singles] if t else features[singles].any(axis=1)
    return scores


@compiled
def _join_rows(finer: Int32, coarser: Int32, row: Int32, free: Int32, top: npt.NDArray[np.int64], sums: Float, units: Float) -> None:
    for r in range(len(finer)):
        target = coarser[r]
        if finer[r] != r or row[r] < 0 or target == r:
            continue
        source = row[r]
        row[r] = -1
        if row[target] < 0:
            row[target] = source
            continue
        for c in range(sums.shape[1]):
            sums[row[target], c] += sums[source, c]
            sums[source, c] = 0
        for c in range(units.shape[1]):
            units[row[target], c] += units[source, c]
            units[source, c] = 0
        free[top[0]] = source
        top[0] += 1


@compiled
def _add_patches(
    patches: Int32,
    labels: Int32,
    is_half: bool,
    bits: npt.NDArray[np.uint16],
    plain: Float,
    raw: npt.NDArray[np.uint32],
    wide: Float,
    precise: npt.NDArray[np.float64],
    row: Int32,
    free: Int32,
    top: npt.NDArray[np.int64],
    sums: Float,
    units: Float,
) -> None:
    """Add each patch to the sums of its region; ``raw`` and ``wide`` are the same memory, seen as bits and as values."""
    for p in patches:
        if is_half:
            place_bits(bits[p], raw)
            rebias(wide)
        else:
            for c in range(len(wide)):
                wide[c] = plain[p, c]
        target = labels[p]
        if row[target] < 0:
            top[0] -= 1
            row[target] = free[top[0]]
        for c in range(len(wide)):
            precise[c] = wide[c]
        square = dot(precise, wide.reshape((1, len(wide))), 0)
        scale = np.float32(1.0 / np.sqrt(square)) if square > 0 else np.float32(0)
        own = row[target]
        for c in range(len(wide)):
            sums[own, c] += wide[c]
        for c in range(len(wide)):
            units[own, c] += wide[c] * scale


@compiled
def _score(sizes: Int32, row: Int32, sums: Float, units: Float, precise: npt.NDArray[np.float64], out: Float) -> None:
    for r in range(len(sizes)):
        if sizes[r] < 2:
            continue
        own = row[r]
        for c in range(sums.shape[1]):
            precise[c] = sums[own, c]
        square = dot(precise, sums, own)
        if square > 0:
            out[r] = min(1.0, max(-1.0, dot(precise, units, own) / (sizes[r] * np.sqrt(square))))
