"""Lloyd's algorithm as one would write it down: a loop over points, all in float64, from a given start."""

from __future__ import annotations

import numpy as np


def lloyd(points: np.ndarray, start: np.ndarray, *, cosine: bool, steps: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Centroids, labels by them, and the objective after every assignment; the caller sees to it that no cluster runs empty."""
    points, centroids = points.astype(float), start.astype(float)
    if cosine:
        points = np.stack([unit(point) for point in points])
        centroids = np.stack([unit(row) for row in centroids])
    labels, objective = nearest(points, centroids)
    objectives = [objective]
    for _ in range(steps):
        for c in range(len(centroids)):
            mean = sum(points[i] for i in range(len(points)) if labels[i] == c) / sum(1 for label in labels if label == c)
            centroids[c] = unit(mean) if cosine else mean
        labels, objective = nearest(points, centroids)
        objectives.append(objective)
    return centroids, labels, objectives


def nearest(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, float]:
    """The first of the nearest centroids of each point, and the mean of the squared distances."""
    labels, total = [], 0.0
    for point in points:
        distances = [float(((point - row) ** 2).sum()) for row in centroids]
        labels.append(distances.index(min(distances)))
        total += min(distances)
    return np.array(labels), total / len(points)


def unit(row: np.ndarray) -> np.ndarray:
    length = float(np.sqrt((row**2).sum()))
    return row / length if length else row
