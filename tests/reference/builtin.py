"""The composition of the built-in extractor in plain float64 NumPy: no quantised sums, no tables, diffusion as a dense matrix."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

VARIANCE = 32.0


def scaled(x: np.ndarray, variance: float) -> np.ndarray:
    """(c, n) centred, variances that sum to ``variance``."""
    y = x - x.mean(axis=1, keepdims=True)
    return y * np.sqrt(variance / (y**2).mean(axis=1).sum())


def components(x: np.ndarray, count: int, deviation: float) -> np.ndarray:
    y = scaled(x, VARIANCE)
    axes = np.linalg.svd(y, full_matrices=False)[0][:, :count]
    return scaled(axes.T @ y, deviation**2 * VARIANCE)


def whitened(x: np.ndarray) -> np.ndarray:
    y = scaled(x, VARIANCE)
    values, axes = np.linalg.eigh(y @ y.T / y.shape[1])
    power = (np.maximum(values, 0) / values.mean() + 0.01) ** -0.25
    return scaled(axes @ (power[:, None] * (axes.T @ y)), VARIANCE)


def resized(x: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    return F.interpolate(torch.from_numpy(x)[None], size=grid, mode="bilinear", align_corners=False)[0].numpy()


def compose(
    handmade: np.ndarray,
    embeddings: list[np.ndarray],
    right: list[np.ndarray],
    below: list[np.ndarray],
    *,
    kept: tuple[int, int],
    learned: float,
    steps: int,
    contrast: float,
    boundary: float,
) -> np.ndarray:
    """(h · w, c) features of one image from (c, h, w) hand-made channels, embeddings and logits (levels, h', w') of boundaries."""
    _, height, width = handmade.shape
    grid = (height, width)
    parts = [components(handmade.reshape(len(handmade), -1), kept[0], 1.0).reshape(-1, height, width)]
    for embedding in embeddings:
        small = components(embedding.reshape(len(embedding), -1), kept[1], learned)
        parts.append(resized(small.reshape(-1, *embedding.shape[1:]), grid))
    x = whitened(np.concatenate(parts).reshape(-1, height * width))
    edges = [np.mean([resized((1 / (1 + np.exp(-z[1:]))).mean(axis=0)[None], grid)[0] for z in side], axis=0) for side in (right, below)]
    matrix = np.eye(height * width)
    for y in range(height):
        for col in range(width):
            here = y * width + col
            for there, edge, inside in ((here + 1, edges[0], col + 1 < width), (here + width, edges[1], y + 1 < height)):
                if inside:
                    distance = np.mean((x[:, here] - x[:, there]) ** 2)
                    matrix[here, there] = matrix[there, here] = np.exp(-contrast * distance - boundary * edge[y, col])
    matrix /= matrix.sum(axis=1, keepdims=True)
    return whitened(x @ np.linalg.matrix_power(matrix, steps).T).T
