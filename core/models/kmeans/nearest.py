"""Nearest centroids: faiss looks, float64 decides.

faiss' values are sums of float32 in an order that depends on its threads, on the device and on how many vectors it is
given. How wrong they can be is bounded; only where that leaves a choice are distances taken again, all in float64. So
labels and margins are a function of the vector and the centroids alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ovskit.core.models.kmeans import kernels
from ovskit.core.models.kmeans.kernels import Float32, Float64
from ovskit.core.records import Float, Int32
from ovskit.core.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

_CHUNK_NUMBERS = 1 << 23  # at a time: 32 MiB of float32
_TF32 = 2.0**-9  # what a GPU may round to where it is let
_ALONE = threading.Lock()


def prepared(vectors: Float, cosine: bool) -> Float32:
    """``vectors`` (n, c) as new float32 rows, of length 1 for cosine. Raises InputError for infinities and NaN."""
    rows = np.array(vectors, dtype=np.float32, order="C")
    for chunk in in_chunks(rows):
        if not np.isfinite(chunk).all():
            raise InputError("k-means: the features hold infinities or NaN; extract them again")
    if cosine:
        kernels.normalise(rows)
    return rows


def in_chunks(rows: Any) -> Iterator[Any]:
    """Views of consecutive rows of (n, c), few enough for what is made of them to stay small."""
    step = max(1, _CHUNK_NUMBERS // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def nearest(points: Float32, centroids: Float32, cosine: bool, device: torch.device | None, *, margins: bool) -> tuple[Int32, Float64]:
    """The nearest of ``centroids`` (k, c) to every point (n, c), ``prepared``: labels (n,), the lower one of equals.

    With ``margins`` also its closeness and that of the second (n, 2), x · y or minus the squared distance, -inf where there
    is no second; else (n, 0).
    """
    labels = np.zeros(len(points), np.int32)
    best = np.zeros((len(points), 2 if margins else 0))
    if len(centroids) == 1 and not margins:
        return labels, best
    on_gpu = _has_gpu(device)
    # faiss' memory of a GPU is for one thread at a time, even to search.
    alone = _ALONE if on_gpu else nullcontext()
    with alone:
        index = _index(centroids, cosine, device if on_gpu else None)
    width = min(len(centroids), 3 if margins else 2)
    # Two values, each of c products summed in any order: Higham, Accuracy and Stability of Numerical Algorithms, 3.1. The lengths of
    # rows for cosine are 1; a squared distance made of |x|² - 2 x·y + |y|² has (|x| + |y|)² of terms.
    rounding = (points.shape[1] + 6) * 2.0 ** (-23 if cosine else -22)
    if on_gpu:
        rounding = max(rounding, _TF32)
    start = 0
    for chunk in in_chunks(points):
        stop = start + len(chunk)
        with alone:
            values, found = index.search(chunk, width)
        if not cosine:
            np.negative(values, out=values)
        kernels.settle(chunk, centroids, values, found, cosine, rounding, labels[start:stop], best[start:stop])
        start = stop
    return labels, best


def _has_gpu(device: torch.device | None) -> bool:
    """Whether faiss can search there."""
    if device is None or device.type != "cuda":
        return False
    import faiss

    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _index(centroids: Float32, cosine: bool, gpu: torch.device | None) -> Any:
    """faiss' flat index of the centroids, on a GPU if one is given."""
    import faiss

    index: Any = faiss.IndexFlatIP(centroids.shape[1]) if cosine else faiss.IndexFlatL2(centroids.shape[1])
    if gpu is not None:
        number = gpu.index or 0
        index = faiss.index_cpu_to_gpu(_resources(number), number, index)
    index.add(np.ascontiguousarray(centroids))
    return index


@lru_cache
def _resources(number: int) -> Any:
    """A GPU's memory for faiss: more than a GiB, taken once."""
    import faiss

    return faiss.StandardGpuResources()
