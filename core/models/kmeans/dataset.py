"""k-means of a set of vectors, and what its centroids say of others.

Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii, SODA 2007), for cosine on the sphere (Dhillon and
Modha, Machine Learning 42, 2001). The same vectors, options and seed give the same bits on any number of threads, and the
labels of a vector depend on no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ovskit.core.formats.streams.centroids import Centroids
from ovskit.core.models.kmeans import kernels
from ovskit.core.models.kmeans.kernels import Float32, Float64, Int64
from ovskit.core.models.kmeans.nearest import in_chunks, nearest, prepared
from ovskit.core.models.kmeans.options import KMeansOptions
from ovskit.core.records import Float, Int32
from ovskit.core.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

# Squared distance on the sphere below which two rows have the same direction: both were rounded to float32.
_SAME = 1e-13
# A mean of unit vectors that is shorter has no direction.
_NO_DIRECTION = 1e-6


def fit(vectors: Float, options: KMeansOptions, *, device: torch.device | None = None) -> Centroids:
    """Centroids of ``vectors`` (n, c), float16 or float32, or of a sample of ``options.max_points`` of them.

    A cluster that has run empty starts again at the point farthest from its centroid. For cosine, vectors of zeros belong to
    the first cluster and change nothing. ``device`` is where faiss looks for the nearest, if it has GPUs; it changes no result.
    Holds the sample as float32, and some 30 bytes more for every vector of it.

    Raises InputError for infinities, NaN, or fewer distinct vectors (for cosine, directions) than k.
    """
    _check_shape(vectors)
    cosine = options.metric == "cosine"
    points = prepared(_sample(vectors, options), cosine)
    best: Centroids | None = None
    for restart in range(options.restarts):
        start = _plus_plus(points, options.k, cosine, np.random.default_rng((options.seed, restart)))
        found = lloyd(points, points[start], options, device=device)
        if best is None or found.objective < best.objective:
            best = found
    assert best is not None
    return best


def assign(vectors: Float, centroids: Centroids, *, device: torch.device | None = None) -> tuple[Int32, Float32]:
    """The nearest centroid of each of ``vectors`` (n, c), the lower of equals, and by how much it is nearer than the second.

    For cosine: its similarity minus that of the second; for euclidean: the distance to the second minus that to the
    first. With a single centroid: the similarity, or minus the distance. Works in chunks; raises InputError for infinities and NaN.
    """
    _check_width(vectors, centroids)
    cosine = centroids.metric == "cosine"
    labels = np.empty(len(vectors), np.int32)
    margins = np.empty(len(vectors), np.float32)
    start = 0
    for chunk in in_chunks(vectors):
        part = slice(start, start + len(chunk))
        labels[part], best = nearest(prepared(chunk, cosine), centroids.rows, cosine, device, margins=True)
        if not cosine:
            best = -np.sqrt(np.maximum(-best, 0))
        margins[part] = best[:, 0] - (best[:, 1] if len(centroids.rows) > 1 else 0)
        start = part.stop
    return labels, margins


def scores(vectors: Float, centroids: Centroids) -> Float32:
    """Cosine similarities, or minus squared distances, of ``vectors`` (n, c) to every centroid (n, k). Raises as ``assign``."""
    _check_width(vectors, centroids)
    cosine = centroids.metric == "cosine"
    out = np.empty((len(vectors), len(centroids.rows)), np.float32)
    start = 0
    for chunk in in_chunks(vectors):
        out[start : start + len(chunk)] = kernels.all_scores(prepared(chunk, cosine), centroids.rows, cosine)
        start += len(chunk)
    return out


def lloyd(points: Float32, start: Float32, options: KMeansOptions, *, device: torch.device | None = None) -> Centroids:
    """Lloyd's algorithm on ``prepared`` points from the centroids ``start`` (k, c): the objective never rises.

    Stops when no label changes. While a cluster is empty it goes on for up to k steps more.
    """
    cosine = options.metric == "cosine"
    rows = start
    previous: Int32 | None = None
    labels, _ = nearest(points, rows, cosine, device, margins=False)
    for step in range(options.iterations + options.k):
        counts = np.bincount(labels, minlength=options.k)
        if step >= options.iterations and counts.all():
            break
        filled = labels if counts.all() else _fill_empty(points, rows, labels, counts, cosine)
        if previous is not None and np.array_equal(filled, previous):
            break
        rows = _means(points, filled, rows, cosine)
        previous = filled
        labels, _ = nearest(points, rows, cosine, device, margins=False)
    objective = float(_own_distances(points, rows, labels).mean())
    return Centroids(rows, options.metric, objective, np.bincount(labels, minlength=options.k).astype(np.int64))


def _sample(vectors: Float, options: KMeansOptions) -> Float:
    if not 0 < options.max_points < len(vectors):
        return vectors
    # A generator of its own, so that restarts are the same whether or not there was anything to leave out.
    chosen = np.random.default_rng((options.seed, 0, 1)).choice(len(vectors), options.max_points, replace=False, shuffle=False)
    return vectors[np.sort(chosen)]


def _plus_plus(points: Float32, k: int, cosine: bool, random: np.random.Generator) -> Int64:
    """Rows to start from: the next one is drawn by its squared distance to the nearest before it."""
    away = np.full(len(points), np.inf)
    if cosine:
        away[~points.any(axis=1)] = 0
    chosen = np.zeros(k, np.int64)
    for place in range(k):
        if cosine:
            away[away <= _SAME] = 0
        upto = np.cumsum(away if place else away > 0, dtype=np.float64)
        if upto[-1] == 0:
            if k == 1:  # all zero, for cosine
                return chosen
            kind = "directions" if cosine else "vectors"
            raise InputError(f"k-means: {place} distinct {kind} among {len(points)}, want at least k = {k}; choose a smaller k")
        chosen[place] = min(np.searchsorted(upto, random.random() * upto[-1], side="right"), np.searchsorted(upto, upto[-1]))
        kernels.lower_to(points, points[chosen[place]], away)
    return chosen


def _fill_empty(points: Float32, rows: Float32, labels: Int32, counts: Int64, cosine: bool) -> Int32:
    """Labels with each empty cluster given the point that is farthest from its centroid, and that is not alone there."""
    labels, counts = labels.copy(), counts.copy()
    away = _own_distances(points, rows, labels)
    if cosine:
        away[~points.any(axis=1)] = 0
    farthest = iter(np.argsort(-away, kind="stable"))
    for empty in np.flatnonzero(counts == 0):
        point = next((p for p in farthest if counts[labels[p]] > 1), None)
        if point is None or away[point] <= (_SAME if cosine else 0):
            break
        counts[labels[point]] -= 1
        counts[empty] += 1
        labels[point] = empty
    return labels


def _means(points: Float32, labels: Int32, rows: Float32, cosine: bool) -> Float32:
    """The mean of every cluster's points, of length 1 for cosine; its row of ``rows`` where there is none."""
    sums = np.zeros(rows.shape)
    kernels.add_rows(points, labels, sums)
    counts = np.bincount(labels, minlength=len(rows))[:, None]
    sums /= np.maximum(counts, 1)
    if not cosine:
        return np.where(counts > 0, sums, rows).astype(np.float32)
    lengths = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
    return np.where(lengths > _NO_DIRECTION, sums / np.maximum(lengths, _NO_DIRECTION), rows).astype(np.float32)


def _own_distances(points: Float32, rows: Float32, labels: Int32) -> Float64:
    out = np.empty(len(points))
    kernels.squared_distances(points, rows, labels, out)
    return out


def _check_shape(vectors: Float) -> None:
    if vectors.ndim != 2 or not vectors.size:
        raise InputError(f"k-means: no vectors: shape {vectors.shape}, want (n, c)")


def _check_width(vectors: Float, centroids: Centroids) -> None:
    width = centroids.rows.shape[1]
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise InputError(f"k-means: centroids of {width} channels for features of shape {vectors.shape}; use those fitted on such features")
