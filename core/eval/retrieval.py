"""Scores of two towers: zero-shot classification by class names, and retrieval between images and captions.

All are shares of hits, by a sample each, so that their intervals come by bootstrap over images (``bootstrap``). Vectors are compared by
their cosines. Among equals the one that comes first goes first, so a tower that says the same of everything does not win.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.bootstrap import interval, resamples
from ovskit.core.records import Float, Int64

Float64 = npt.NDArray[np.float64]
_BLOCK = 256  # images or captions whose cosines with all others are held at a time


def topk_hits(images: Float, classes: Float, truth: Int64, ks: Sequence[int] = (1, 5)) -> Float64:
    """Zero-shot classification: whether the true class of each image is among the first k by cosine; 0 or 1, float64 (n, len(ks)).

    ``images`` (n, c) and ``classes`` (m, c) are vectors of any length but 0, ``truth`` (n,) the place of each image's class.
    """
    return _hits(images, classes, [np.array([place]) for place in truth.tolist()], ks)


def image_to_text_hits(images: Float, captions: Float, image_of: Int64, ks: Sequence[int] = (1, 5, 10)) -> Float64:
    """Whether any caption of each image is among its first k captions; 0 or 1, float64 (n, len(ks)); NaN for an image without one.

    ``captions`` (m, c) are of the images ``image_of`` (m,); an image may have several.
    """
    order = np.argsort(image_of, kind="stable")
    counts = np.bincount(image_of, minlength=len(images))
    own = np.split(order, np.cumsum(counts)[:-1])
    return _hits(images, captions, own, ks)


def text_to_image_hits(images: Float, captions: Float, image_of: Int64, ks: Sequence[int] = (1, 5, 10)) -> Float64:
    """The share of each image's captions that have it among their first k images: float64 (n, len(ks)); NaN for an image without one.

    The mean of such shares is the usual recall where every image has as many captions.
    """
    hits = _hits(captions, images, [np.array([place]) for place in image_of.tolist()], ks)
    counts = np.bincount(image_of, minlength=len(images)).astype(np.float64)
    sums = np.stack([np.bincount(image_of, weights=column, minlength=len(images)) for column in hits.T], axis=1)
    with np.errstate(invalid="ignore"):
        found: Float64 = sums / counts[:, None]
    return found


def mean_with_interval(values: Float64, *, count: int = 1000, seed: int = 0, confidence: float = 0.95) -> tuple[float, float, float]:
    """The mean of ``values`` (n,), one an image, and its percentile interval by bootstrap over images; NaN values are left out.

    Raises ValueError where there is none.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        raise ValueError("there is no value to take the mean of")
    blocks = [weights.T @ defined / len(defined) for weights in resamples(np.arange(len(defined)), len(defined), count, seed, 64)]
    low, high = interval(np.concatenate(blocks), confidence) or (float("nan"), float("nan"))
    return float(defined.mean()), low, high


def centred(rows: Float, mean: Float | None = None) -> Float:
    """Rows (n, c) without what all have in common, at length 1: from each, at length 1, the ``mean`` row is taken away, by default that of
    these rows. Text rows lie in a cone, and what words share says nothing of a class."""
    unit = _unit(rows)
    return _unit(unit - (unit.mean(axis=0) if mean is None else mean)).astype(np.float32)


def _hits(queries: Float, targets: Float, right: Sequence[npt.NDArray[np.integer]], ks: Sequence[int]) -> Float64:
    """Whether the best of the ``right`` targets of each query has fewer than k targets before it."""
    left, others = _unit(queries), _unit(targets)
    found = np.zeros((len(left), len(ks)))
    for start in range(0, len(left), _BLOCK):
        cosines = left[start : start + _BLOCK] @ others.T
        for k, row in enumerate(cosines):
            own = right[start + k]
            if not len(own):
                found[start + k] = np.nan
                continue
            best = int(own[np.argmax(row[own])])
            before = int((row > row[best]).sum()) + int((row[:best] == row[best]).sum())
            found[start + k] = [before < most for most in ks]
    return found


def _unit(rows: Float) -> Float64:
    exact = rows.astype(np.float64)
    found: Float64 = exact / np.sqrt(np.square(exact).sum(axis=1, keepdims=True))
    return found
