"""The pool of distinct regions that one merge sequence yields, thinned by NMS along tree chains; no pixel is touched.

All partitions recorded from one sequence are nested, so two regions are either nested or disjoint, the IoU of a nested
pair is the ratio of their areas, and only the nearest kept ancestor can suppress a region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ovskit.core.cluster.merge import MergeSequence, partition
from ovskit.core.records import Float, Int32


@dataclass(frozen=True, slots=True)
class Pool:
    """Regions of one image (or crop) on its patch grid, finest partition first, then by lowest patch.

    ``partitions`` is (t, h, w) int32: each patch's region, named by its lowest row-major patch index. Region k is
    ``partitions[level[k]] == label[k]``, of ``patches[k]`` patches, and ``level[k]`` is the first partition it stands
    alone in. ``score[k]`` in [−1, 1] is the mean cosine of its patches to its feature.
    """

    partitions: Int32
    level: Int32
    label: Int32
    patches: Int32
    score: Float


def pool_regions(sequence: MergeSequence, steps: Int32, features: Float, buffer: Float, *, nms: float, min_patches: int) -> Pool:
    """Distinct regions of the partitions after ``steps`` (ascending) merges, thinned by NMS at IoU > ``nms``, larger first.

    ``features`` (h, w, c) are the patch features, untouched; ``buffer`` is any float32 array of h·w·c values, overwritten
    (the merge's own, which is free by now). A region found in several partitions appears once, at the first; regions of
    fewer than ``min_patches`` patches do not enter. SOHES §3.1: "NMS removes duplicates"; IoU 0.9 and larger first are
    choices.
    """
    channels = features.shape[2]
    partitions = np.stack([partition(sequence, int(step)) for step in steps])
    flat = partitions.reshape(len(steps), -1)
    sizes, kept = _thin(flat, nms, min_patches)
    level, label = (index.astype(np.int32) for index in np.nonzero(kept))
    score = _scores(flat, sizes, features.reshape(-1, channels), buffer.reshape(-1))[level, label]
    return Pool(partitions, level, label, sizes[level, label], score)


@njit(nogil=True, cache=True)
def _thin(labels: Int32, nms: float, min_patches: int) -> tuple[Int32, np.ndarray]:
    """Sizes (t, n) of each region at its label, and which (t, label) enter the pool."""
    levels, n = labels.shape
    sizes = np.zeros((levels, n), np.int32)
    for t in range(levels):
        for p in range(n):
            sizes[t, labels[t, p]] += 1
    kept = np.zeros((levels, n), np.bool_)
    # Area of the smallest kept region around each region; coarse to fine, so larger regions decide first.
    around = np.zeros((levels, n), np.int32)
    for t in range(levels - 1, -1, -1):
        for r in range(n):
            size = sizes[t, r]
            if size == 0:
                continue
            if t + 1 < levels:
                outer = labels[t + 1, r]
                around[t, r] = around[t + 1, outer]
                if sizes[t + 1, outer] == size:
                    # The same region stood there already; it belongs to the first partition that has it.
                    kept[t, r] = kept[t + 1, outer]
                    kept[t + 1, outer] = False
                    continue
            if size >= min_patches and (around[t, r] == 0 or size <= nms * around[t, r]):
                kept[t, r] = True
                around[t, r] = size
    return sizes, kept


_CHUNK = 1024  # patches converted to float32 at a time: bounds the memory beside the buffer


def _scores(labels: Int32, sizes: Int32, features: Float, buffer: Float) -> Float:
    """Mean cosine of member patches to the region's summed feature, float32 (t, n), at every (t, label) that is a region.

    With f the features, F their sum over a region and U the sum of f/|f|, the mean is U·F / (n |F|). F and U are additive
    along the tree: patches are summed once, for the finest partition, coarser ones add up finer ones. Regions of two and
    more patches are at most half as many as patches, so both sums fit into the merge's buffer.
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
    row = np.full(n, -1, np.int32)
    free = np.arange(half - 1, -1, -1, dtype=np.int32)
    top = np.array([half])
    scores = np.zeros((levels, n), np.float32)
    singles = np.arange(n, dtype=np.int32)
    for t in range(levels):
        if t:
            _join_rows(labels[t - 1], labels[t], row, free, top, sums, units)
        joining = singles[sizes[t][labels[t][singles]] > 1]
        singles = singles[sizes[t][labels[t][singles]] == 1]
        for k in range(0, len(joining), _CHUNK):
            chunk = joining[k : k + _CHUNK]
            _add_patches(features[chunk].astype(np.float32), labels[t][chunk], row, free, top, sums, units)
        _score_level(sizes[t], row, sums, units, scores[t])
        for k in range(0, len(singles), _CHUNK):
            chunk = singles[k : k + _CHUNK]
            scores[t][chunk] = features[chunk].any(axis=1)
    return scores


@njit(nogil=True, cache=True)
def _join_rows(finer: Int32, coarser: Int32, row: Int32, free: Int32, top: np.ndarray, sums: Float, units: Float) -> None:
    for r in range(len(finer)):
        target = coarser[r]
        if finer[r] != r or row[r] < 0 or target == r:
            continue
        if row[target] < 0:
            row[target] = row[r]
        else:
            source = row[r]
            for c in range(sums.shape[1]):
                sums[row[target], c] += sums[source, c]
                units[row[target], c] += units[source, c]
                sums[source, c] = 0
                units[source, c] = 0
            free[top[0]] = source
            top[0] += 1
        row[r] = -1


@njit(nogil=True, cache=True)
def _add_patches(chunk: Float, targets: Int32, row: Int32, free: Int32, top: np.ndarray, sums: Float, units: Float) -> None:
    for k in range(len(chunk)):
        target = targets[k]
        if row[target] < 0:
            top[0] -= 1
            row[target] = free[top[0]]
        norm = 0.0
        for c in range(chunk.shape[1]):
            norm += np.float64(chunk[k, c]) * np.float64(chunk[k, c])
        scale = np.float32(1.0 / np.sqrt(norm)) if norm > 0 else np.float32(0)
        for c in range(chunk.shape[1]):
            sums[row[target], c] += chunk[k, c]
            units[row[target], c] += chunk[k, c] * scale


@njit(nogil=True, cache=True)
def _score_level(sizes: Int32, row: Int32, sums: Float, units: Float, out: Float) -> None:
    for r in range(len(sizes)):
        if sizes[r] < 2:
            continue
        dot = 0.0
        norm = 0.0
        for c in range(sums.shape[1]):
            dot += np.float64(units[row[r], c]) * np.float64(sums[row[r], c])
            norm += np.float64(sums[row[r], c]) * np.float64(sums[row[r], c])
        if norm > 0:
            out[r] = min(1.0, max(-1.0, dot / (sizes[r] * np.sqrt(norm))))
