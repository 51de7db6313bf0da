"""CoCu's equations as they are written, in float64, one image and one concept at a time."""

from __future__ import annotations

import math

import numpy as np


def nearest(anchor, rows, keys, own, count, limit=np.inf):
    """The keys of the ``count`` rows nearest to ``anchor``, but for ``own`` and those as similar as ``limit``."""
    anchor = np.asarray(anchor, np.float64)
    cosines = [math.fsum(float(a) * float(b) for a, b in zip(anchor, row, strict=True)) for row in rows]
    left = [k for k in range(len(rows)) if k != own and cosines[k] < limit]
    order = sorted(left, key=lambda k: (-cosines[k], keys[k]))
    return order[:count], [cosines[k] for k in order[:count]]


def relevance(f_anchor, f_neighbours, has, *, guided=True, code=False):
    """Scores of one anchor: ``f_anchor`` maps concepts to f(x, t), ``f_neighbours`` is one such map a neighbour, ``has`` the concepts of
    each neighbour."""
    clamp = lambda value: max(value, 1e-6)  # noqa: E731
    largest = max([clamp(f_anchor[c]) for c in f_anchor] + [clamp(f[c]) for f in f_neighbours for c in f_anchor])
    scores = {}
    for concept, value in f_anchor.items():
        f = clamp(value)
        group = [clamp(f_neighbours[i][concept]) for i in range(len(has)) if concept in has[i]]
        first = f / largest if code else f
        second = (1 + len(group)) * f / (f + sum(group))
        scores[concept] = first + second if guided else first
    return scores


def objective(texts, labels):
    """What spherical k-means makes large: the lengths of the clusters' sums."""
    texts = np.asarray(texts, np.float64)
    return sum(np.linalg.norm(texts[labels == k].sum(axis=0)) for k in np.unique(labels))
