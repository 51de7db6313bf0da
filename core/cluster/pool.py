"""The pool of distinct regions that one merge sequence yields, thinned by NMS along tree chains; no pixel is touched.

All partitions recorded from one sequence are nested, so two regions are either nested or disjoint, the IoU of a nested
pair is the ratio of their areas, and only the nearest kept ancestor can suppress a region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovskit.core.cluster.merge import MergeSequence, partition
from ovskit.core.cluster.scores import region_scores
from ovskit.core.records import Float, Int32
from ovskit.core.runtime.kernels import njit


@dataclass(frozen=True, slots=True)
class Pool:
    """Regions of one image (or crop) on its patch grid, finest partition first, then by lowest patch.

    ``partitions`` is (t, h, w) int32: each patch's region, named by its lowest row-major patch index. Region k is
    ``partitions[level[k]] == label[k]``, of ``patches[k]`` patches, and ``level[k]`` is the first partition it stands
    alone in. ``score[k]`` is its persistence in (0, 1], or the mean cosine of its patches to its feature in [−1, 1].
    """

    partitions: Int32
    level: Int32
    label: Int32
    patches: Int32
    score: Float


def pool_regions(
    sequence: MergeSequence,
    steps: Int32,
    features: Float,
    buffer: Float,
    *,
    nms: float,
    min_patches: int,
    cosine: bool = False,
    again: int = 0,
) -> Pool:
    """Distinct regions of the partitions after ``steps`` (ascending) merges, thinned by NMS at IoU > ``nms``, larger first.

    ``features`` (h, w, c) are the patch features, untouched; ``buffer`` is any float32 array of h·w·c values, overwritten
    (the merge's own, which is free by now). A region found in several partitions appears once, at the first; regions of
    fewer than ``min_patches`` patches do not enter. SOHES §3.1: "NMS removes duplicates"; IoU 0.9 and larger first are
    choices. A region's score, which the paper leaves open, is its persistence: the share of the partitions that show it, or a
    duplicate that it removed; the first ``again`` partitions are those of a step that comes again, and do not count. ``cosine`` takes
    the mean cosine instead.
    """
    channels = features.shape[2]
    partitions = np.stack([partition(sequence, int(step)) for step in steps])
    flat = partitions.reshape(len(steps), -1)
    sizes, kept, shown = _thin(flat, nms, min_patches, again)
    level, label = (index.astype(np.int32) for index in np.nonzero(kept))
    if cosine:
        score = region_scores(flat, sizes, features.reshape(-1, channels), buffer.reshape(-1))[level, label]
    else:
        score = shown[level, label].astype(np.float32) / np.float32(len(steps) - again)
    return Pool(partitions, level, label, sizes[level, label], score)


@njit(nogil=True, cache=True)
def _thin(labels: Int32, nms: float, min_patches: int, again: int) -> tuple[Int32, np.ndarray, Int32]:
    """Sizes (t, n) of each region at its label, which (t, label) enter the pool, and in how many partitions those show."""
    levels, n = labels.shape
    sizes = np.zeros((levels, n), np.int32)
    for t in range(levels):
        for p in range(n):
            sizes[t, labels[t, p]] += 1
    kept = np.zeros((levels, n), np.bool_)
    # Area of the smallest kept region around each region; coarse to fine, so larger regions decide first.
    around = np.zeros((levels, n), np.int32)
    # What names that region, where it was kept first, and how many partitions show it or a duplicate of it.
    around_id = np.full((levels, n), -1, np.int32)
    shown = np.zeros(levels * n, np.int32)
    seen = np.full(levels * n, -1, np.int32)  # the last partition that counted: below an IoU of 0.5 two of its regions may be duplicates
    for t in range(levels - 1, -1, -1):
        for r in range(n):
            size = sizes[t, r]
            if size == 0:
                continue
            unchanged = False
            if t + 1 < levels:
                outer = labels[t + 1, r]
                around[t, r] = around[t + 1, outer]
                around_id[t, r] = around_id[t + 1, outer]
                unchanged = sizes[t + 1, outer] == size
                if unchanged:
                    # The same region stood there already; it belongs to the first partition that has it.
                    kept[t, r] = kept[t + 1, outer]
                    kept[t + 1, outer] = False
            if not unchanged and size >= min_patches and (around[t, r] == 0 or size <= nms * around[t, r]):
                kept[t, r] = True
                around[t, r] = size
                around_id[t, r] = t * n + r
            shows = around[t, r] > 0 and (size == around[t, r] or size > nms * around[t, r])
            if shows and t >= again and seen[around_id[t, r]] != t:
                seen[around_id[t, r]] = t
                shown[around_id[t, r]] += 1
    counts = np.zeros((levels, n), np.int32)
    for t in range(levels):
        for r in range(n):
            if kept[t, r]:
                counts[t, r] = shown[around_id[t, r]]
    return sizes, kept, counts
