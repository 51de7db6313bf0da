"""k-means of every image by itself, many images at a time (S-Seg's pseudo-masks: K = 8 on the patches of an image).

A sum's rounding depends on its order, and a batched matrix product's order on the batch, the threads and the device. Here
every vector and every centroid is first rounded to a fixed grid so coarse that a float64 holds each sum of their products:
the sums are then exact, hence the same in any order, and what is not a sum is one correctly rounded operation. So an image's
clusters are the same bits in any batch, on any number of threads, and on a GPU.

For cosine the grid's step is 2⁻²⁵ of the vectors' length: products in steps of 2⁻⁵⁰ of which, by Cauchy and Schwarz, no partial sum
exceeds 1. For euclidean it is 2⁻ᵇ of the next power of two above the largest magnitude in the image, 2b + log₂ c = 50: at 384
channels a millionth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ovskit.core.models.kmeans.options import KMeansOptions
from ovskit.core.runtime.errors import InputError, UsageError

_COSINE_BITS = 25
_LENGTH_BITS = 20  # of rows scaled to a largest entry of ½ to 1: their squares have 40 bits, and 2^13 of them may be summed
_MOST = 1 << 18  # patches of an image: sums of 2^44 as int64
_WEIGHT = 2.0**30
# float64 bytes of patches at a time: on a CPU what a cache holds, on a GPU enough to fill it.
_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}


def fit_each(maps: torch.Tensor, options: KMeansOptions, seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (b, n) int64 and centroids (b, k, c) float32 of ``maps`` (b, n, c), each image by itself, on their device.

    ``seeds`` has one number of 0 or more for each image: an image's result is a function of its rows, its seed and the options
    without their ``seed`` and ``max_points``, bit for bit. Every label is that of the nearest centroid, the lower of equals, to the grid's
    precision. A cluster that has run empty starts again at the point farthest from its centroid; an image of fewer than k
    distinct vectors has clusters without points. For cosine, vectors of zeros belong to the first cluster and change nothing.

    Raises InputError for infinities and NaN. MPS has no float64: the work is then done on the CPU.
    """
    if maps.ndim != 3 or not maps.numel():
        raise InputError(f"k-means: no images: shape {tuple(maps.shape)}, want (images, patches, channels)")
    if len(seeds) != len(maps):
        raise ValueError(f"{len(seeds)} seeds for {len(maps)} images")
    if maps.shape[1] > _MOST:
        raise UsageError(f"k-means: {maps.shape[1]} patches in an image, want at most {_MOST}; take a coarser grid")
    where = maps.device if maps.device.type in _BYTES else torch.device("cpu")
    step = max(1, _BYTES[where.type] // (8 * maps.shape[1] * maps.shape[2]))
    labels, centroids = [], []
    with torch.no_grad():
        for start in range(0, len(maps), step):
            part = _fit(maps[start : start + step].to(where), options, seeds[start : start + step])
            labels.append(part[0].to(maps.device))
            centroids.append(part[1].to(maps.device))
    return torch.cat(labels), torch.cat(centroids)


@dataclass(frozen=True, slots=True)
class _Points:
    """Images' patches on their grid: ``rows`` (b, n, c) float64, ``square`` their squared lengths (b, n), exact.

    ``step`` is the grid's, ``scale`` (b,) the unit of it all, and ``live`` (b, n) whether a patch has a say: for cosine zeros
    have none. What is no farther than ``same`` has the same direction.
    """

    rows: torch.Tensor
    square: torch.Tensor
    live: torch.Tensor
    scale: torch.Tensor
    step: float
    same: float
    cosine: bool


class _State(NamedTuple):
    """Centroids (b, k, c), the label of every patch (b, n), and its squared distance to its centroid (b, n)."""

    centroids: torch.Tensor
    labels: torch.Tensor
    away: torch.Tensor


def _fit(maps: torch.Tensor, options: KMeansOptions, seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    points = _on_grid(maps, options.metric == "cosine")
    best = _lloyd(points, _plus_plus(points, _draws(seeds, 0, options.k, maps.device)), options)
    for restart in range(1, options.restarts):
        found = _lloyd(points, _plus_plus(points, _draws(seeds, restart, options.k, maps.device)), options)
        better = _whole(found.away).sum(1) < _whole(best.away).sum(1)
        best = _State(*(torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(found, best, strict=True)))
    return best.labels, (best.centroids * points.scale[:, None, None]).float()


def _draws(seeds: Sequence[int], restart: int, k: int, device: torch.device) -> torch.Tensor:
    """Uniform in [0, 1), (b, k), by the image's seed."""
    return torch.from_numpy(np.stack([np.random.default_rng((seed, restart)).random(k) for seed in seeds])).to(device)


def _on_grid(maps: torch.Tensor, cosine: bool) -> _Points:
    channels = maps.shape[2]
    low, high = (extreme.double() for extreme in maps.aminmax(dim=2, keepdim=True))
    largest = torch.maximum(high, -low)
    if not torch.isfinite(largest).all():
        raise InputError("k-means: the features hold infinities or NaN; extract them again")
    if not cosine:
        largest = largest.amax(dim=1, keepdim=True)
    unit = torch.where(largest > 0, largest / torch.frexp(largest).mantissa, 1.0)  # a power of two: dividing by it is exact
    # In place: most of the time this takes is for memory.
    x = maps.double() * (1 / unit)
    if cosine:
        # A length that is slightly off only scales a vector, which changes no angle.
        squares = (x * 2.0**_LENGTH_BITS).round_().square_().sum(dim=2, keepdim=True)
        length = squares.sqrt() * 2.0**-_LENGTH_BITS
        live, scale, step = length[:, :, 0] > 0, torch.ones_like(unit[:, 0, 0]), 2.0**-_COSINE_BITS
        x.div_(torch.where(length > 0, length, 1.0))
        same = 4 * channels * step * step
    else:
        live, scale, step = (
            torch.ones_like(low[:, :, 0], dtype=torch.bool),
            unit[:, 0, 0],
            2.0 ** -((50 - (channels - 1).bit_length()) // 2),
        )
        same = 0.0
    x.mul_(1 / step).round_().mul_(step)
    return _Points(x, x.square().sum(dim=2), live, scale, step, same, cosine)


def _round(x: torch.Tensor, step: float) -> torch.Tensor:
    return torch.round(x * (1 / step)) * step


def _whole(x: torch.Tensor) -> torch.Tensor:
    """Squared distances as whole numbers, of which sums are exact; what is not 0 stays so."""
    return torch.ceil(x * _WEIGHT).long()


def _plus_plus(points: _Points, draws: torch.Tensor) -> torch.Tensor:
    """Centroids (b, k, c) to start from: the next one is drawn by its squared distance to the nearest before it.

    Where nothing is left that is not one of them, the first patch again.
    """
    chosen = []
    away = points.live.double()
    for place in range(draws.shape[1]):
        upto = _whole(away).cumsum(1)
        total = upto[:, -1:]
        mark = torch.minimum((draws[:, place, None] * total).floor().long(), total - 1)
        index = (upto <= mark).sum(1)  # the first beyond the mark; with a total of 0 the mark is -1
        centre = points.rows.gather(1, index[:, None, None].expand(-1, 1, points.rows.shape[2]))
        chosen.append(centre)
        new = points.square + points.square.gather(1, index[:, None]) - 2 * (centre @ points.rows.mT)[:, 0]
        new = torch.where((new > points.same) & points.live, new, 0.0)
        away = torch.minimum(away, new) if place else new
    return torch.cat(chosen, dim=1)


def _lloyd(points: _Points, centroids: torch.Tensor, options: KMeansOptions) -> _State:
    state = _assign(points, centroids)
    previous: torch.Tensor | None = None
    for _ in range(options.iterations):
        labels = _fill_empty(points, state, options.k)
        # The same labels give the same centroids, so an image that has come to rest stays as it is while others go on.
        if previous is not None and torch.equal(labels, previous):
            break
        state = _assign(points, _means(points, labels, state.centroids))
        previous = labels
    return state


def _assign(points: _Points, centroids: torch.Tensor) -> _State:
    # For cosine a centroid's length is 1, but for the grid; it must not decide.
    square = centroids.square().sum(dim=2)
    bias = torch.zeros_like(square) if points.cosine else square
    best, labels = (2 * (centroids @ points.rows.mT) - bias[:, :, None]).max(dim=1)
    away = points.square - best + (square.gather(1, labels) if points.cosine else 0)
    return _State(centroids, labels, torch.where((away > points.same) & points.live, away, 0.0))


def _fill_empty(points: _Points, state: _State, k: int) -> torch.Tensor:
    """Labels with each empty cluster given the point that is farthest from its centroid, and that is not alone there."""
    counts = _counts(state.labels, k)
    if bool((counts > 0).all()):
        return state.labels
    labels, away = state.labels.clone(), state.away.clone()
    for empty in range(k):
        far, point = torch.where(counts.gather(1, labels) > 1, away, 0.0).max(dim=1, keepdim=True)
        moved = (counts[:, empty, None] == 0) & (far > 0)
        labels.scatter_(1, point, torch.where(moved, empty, labels.gather(1, point)))
        away.scatter_(1, point, torch.where(moved, 0.0, away.gather(1, point)))
        counts = _counts(labels, k)
    return labels


def _counts(labels: torch.Tensor, k: int) -> torch.Tensor:
    return (labels[:, :, None] == torch.arange(k, device=labels.device)).sum(dim=1)


def _means(points: _Points, labels: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The mean of every cluster's points on the grid, of length 1 for cosine; the centroid before where there is none."""
    member = (labels[:, None, :] == torch.arange(centroids.shape[1], device=labels.device)[:, None]).double()
    counts = member.sum(dim=2, keepdim=True)
    means = _round((member @ points.rows) / counts.clamp_min(1), points.step)
    if points.cosine:
        length = means.square().sum(dim=2, keepdim=True).sqrt()
        # A mean of almost no length has no direction.
        found, means = length > 1e-6, _round(means / length.clamp_min(1e-6), points.step)
    else:
        found = counts > 0
    return torch.where(found, means, centroids)
