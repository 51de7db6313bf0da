"""Semantic scores as a person would write them down: a loop over pixels into a dictionary, then a loop over classes."""

from __future__ import annotations

from itertools import permutations

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t != -1:
            found[t, p] = found.get((t, p), 0) + 1
    return found


def scores(counts: dict[tuple[int, int], int], classes: list[int]) -> dict[str, float]:
    """Of counts whose predicted ids are classes or, for none of them, -1."""
    ious, strict, recalls, weighted = [], [], [], 0.0
    total = sum(counts.values())
    right = sum(n for (t, p), n in counts.items() if t == p)
    for c in classes:
        truth = sum(n for (t, _), n in counts.items() if t == c)
        predicted = sum(n for (_, p), n in counts.items() if p == c)
        common = counts.get((c, c), 0)
        if truth:
            ious.append(common / (truth + predicted - common))
            recalls.append(common / truth)
            weighted += truth * ious[-1] / total
        if truth or predicted:
            strict.append(common / (truth + predicted - common))
    return {
        "mIoU": sum(ious) / len(ious),
        "mIoU_strict": sum(strict) / len(strict),
        "pixel_accuracy": right / total,
        "mean_accuracy": sum(recalls) / len(recalls),
        "fwIoU": weighted,
    }


def best_sum(gain: np.ndarray) -> float:
    """The largest sum of entries of which no two share a row or a column, by trying all."""
    if gain.shape[0] > gain.shape[1]:
        gain = gain.T
    rows = range(gain.shape[0])
    return max(sum(gain[k, c] for k, c in zip(rows, chosen, strict=True)) for chosen in permutations(range(gain.shape[1]), len(rows)))
