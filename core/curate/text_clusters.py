"""Clusters of an anchor's concepts by what they mean: CoCu's cluster-guided sampling (section 3.2).

The paper draws one concept of each of L clusters of the archive at every training step, so that synonyms do not crowd out the rest. It
names k-means; the initialisation, the number of iterations and what happens to empty clusters are choices: k-means++ by a generator that
depends on the seed and the image's key alone, 20 iterations, and the concept farthest from its centre for an empty cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovskit.core.curate.kernels import Float32, dot
from ovskit.core.records import Int32, Int64
from ovskit.core.runtime.kernels import njit

ITERATIONS = 20


def seeds_of(keys: Sequence[str], seed: int) -> Any:
    """A number (n,) uint64 for each key: the first 64 bits of the SHA-256 of ``SEED:KEY``."""
    texts = (f"{seed}:{key}".encode("utf-8", "surrogatepass") for key in keys)
    return np.array([int.from_bytes(hashlib.sha256(text).digest()[:8], "little") for text in texts], np.uint64)


def cluster_concepts(texts: Float32, ids: Int32, starts: Int64, count: int, seeds: Any) -> Int32:
    """The cluster (m,) int32 of each ranked concept, for archives as ``relevance.Archive`` has them.

    ``texts`` (C, c) float32 are the unit rows of all concepts. Spherical k-means with ``count`` clusters; where an archive has no more
    concepts than that, each is a cluster. Clusters are numbered in the order of their best concepts.
    """
    return np.asarray(_cluster(texts, ids, starts, count, seeds, ITERATIONS), np.int32)


@njit(cache=True, nogil=True)
def _cluster(texts: Any, ids: Any, starts: Any, count: int, seeds: Any, iterations: int) -> Any:
    found = np.empty(len(ids), np.int32)
    for q in range(len(starts) - 1):
        first, last = starts[q], starts[q + 1]
        m = last - first
        if m <= count:
            for k in range(m):
                found[first + k] = k
        else:
            gram = np.empty((m, m))
            for i in range(m):
                for j in range(i + 1):
                    gram[i, j] = gram[j, i] = dot(texts[ids[first + i]], texts[ids[first + j]])
            labels = _k_means(gram, count, seeds[q], iterations)
            number = np.full(count, -1, np.int32)
            used = 0
            for k in range(m):
                if number[labels[k]] < 0:
                    number[labels[k]] = used
                    used += 1
                found[first + k] = number[labels[k]]
    return found


@njit(cache=True, nogil=True)
def _k_means(gram: Any, count: int, seed: Any, iterations: int) -> Any:
    """Labels (m,) of spherical k-means, given all products (m, m) of the unit vectors; m > count."""
    m = len(gram)
    labels = np.zeros(m, np.int64)
    near = np.full(m, -np.inf)  # to the nearest centre
    state = seed
    for k in range(count):  # k-means++, by 1 - cosine, which is half of the squared distance
        total = 0.0
        for i in range(m):
            total += max(0.0, 1.0 - near[i]) if k else 1.0
        state, drawn = _uniform(state)
        left = drawn * total
        chosen = m - 1
        for i in range(m):
            left -= max(0.0, 1.0 - near[i]) if k else 1.0
            if left < 0.0:
                chosen = i
                break
        for i in range(m):
            if gram[i, chosen] > near[i]:
                near[i] = gram[i, chosen]
                labels[i] = k
    for _ in range(iterations):
        sums, lengths = _centres(gram, labels, count)
        changed = False
        for i in range(m):
            best = labels[i]
            for k in range(count):
                if _cosine(sums, lengths, i, k) > _cosine(sums, lengths, i, best):
                    best = k
            near[i] = _cosine(sums, lengths, i, best)
            changed |= best != labels[i]
            labels[i] = best
        for k in range(count):
            if not (labels == k).any():
                labels[_farthest(near, labels, count)] = k
                changed = True
        if not changed:
            break
    return labels


@njit(cache=True, nogil=True)
def _centres(gram: Any, labels: Any, count: int) -> Any:
    """The product (m, k) of every vector with every sum of a cluster, and the lengths (k,) of the sums."""
    m = len(gram)
    sums = np.zeros((m, count))
    for i in range(m):
        for j in range(m):
            sums[i, labels[j]] += gram[i, j]
    lengths = np.zeros(count)
    for i in range(m):
        lengths[labels[i]] += sums[i, labels[i]]
    return sums, np.sqrt(np.maximum(lengths, 0.0))


@njit(cache=True, nogil=True)
def _cosine(sums: Any, lengths: Any, i: int, k: int) -> float:
    return sums[i, k] / lengths[k] if lengths[k] > 1e-12 else -np.inf


@njit(cache=True, nogil=True)
def _farthest(near: Any, labels: Any, count: int) -> int:
    """The vector that is least like its centre among those that are not alone in their cluster."""
    sizes = np.zeros(count, np.int64)
    for label in labels:
        sizes[label] += 1
    chosen = -1
    for i in range(len(near)):
        if sizes[labels[i]] > 1 and (chosen < 0 or near[i] < near[chosen]):
            chosen = i
    near[chosen] = np.inf  # not twice
    return chosen


@njit(cache=True, nogil=True)
def _uniform(state: Any) -> Any:
    """splitmix64: the next state and a number in [0, 1) of 53 bits."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return state, np.float64(z >> np.uint64(11)) / 9007199254740992.0
