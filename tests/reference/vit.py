"""A vision transformer written down from its equations (Dosovitskiy et al., ICLR 2021) in NumPy, with the positions of DINO.

Slow, float64, one image. Parameters go by the names of the authors' checkpoints, as float64 arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import erf, floor

import numpy as np

Arrays = Mapping[str, np.ndarray]
_ERF = np.vectorize(erf)
_A = -0.75  # of the cubic convolution kernel (Keys, 1981), as torch has it without antialiasing
_OFFSET = 0.1  # patches, that DINO's and DINOv2's code add to the size when they compute the scale


def positions(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A table of position embeddings (H, W, c) at another grid (h, w): (h, w, c), as DINO does; its own grid is left as it is.

    The scale is (h + 0.1) / H, so row i lies at (i + 1/2) * H / (h + 0.1) - 1/2 of the table.
    """
    if table.shape[:2] == grid:
        return table
    out = np.zeros((*grid, table.shape[2]))
    for i in range(grid[0]):
        for j in range(grid[1]):
            for row, down in _taps(i, grid[0], table.shape[0]):
                for column, across in _taps(j, grid[1], table.shape[1]):
                    out[i, j] += down * across * table[row, column]
    return out


def _taps(index: int, new: int, old: int) -> list[tuple[int, float]]:
    """The four samples of a point with their weights; those beyond the border are the border's."""
    at = (index + 0.5) / ((new + _OFFSET) / old) - 0.5
    return [(min(max(sample, 0), old - 1), _cubic(abs(at - sample))) for sample in range(floor(at) - 1, floor(at) + 3)]


def _cubic(x: float) -> float:
    if x <= 1:
        return (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    return _A * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def keys(state: Arrays, image: np.ndarray, *, heads: int, layer: int) -> np.ndarray:
    """The keys (h, w, c) that block ``layer`` computes of the patches of a normalised image (3, H, W), heads side by side."""
    kernel = state["patch_embed.proj.weight"]
    width, _, patch, _ = kernel.shape
    grid = (image.shape[1] // patch, image.shape[2] // patch)
    x = np.zeros((*grid, width))
    for i in range(grid[0]):
        for j in range(grid[1]):
            pixels = image[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            x[i, j] = np.tensordot(kernel, pixels, 3) + state["patch_embed.proj.bias"]
    table = state["pos_embed"][0]
    side = round(float(np.sqrt(len(table) - 1)))
    x += positions(table[1:].reshape(side, side, width), grid)
    tokens = np.concatenate([state["cls_token"][0] + table[:1], x.reshape(-1, width)])
    for k in range(layer):
        tokens = _block(state, f"blocks.{k}.", tokens, heads)
    _, found, _ = _projections(state, f"blocks.{layer}.", tokens)
    return found[1:].reshape(*grid, width)


def _block(state: Arrays, at: str, tokens: np.ndarray, heads: int) -> np.ndarray:
    parts = [np.split(part, heads, axis=1) for part in _projections(state, at, tokens)]
    attended = []
    for query, key, value in zip(*parts, strict=True):
        logits = query @ key.T / np.sqrt(query.shape[1])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        attended.append(weights / weights.sum(axis=1, keepdims=True) @ value)
    tokens = tokens + state.get(f"{at}ls1.gamma", 1.0) * _linear(state, f"{at}attn.proj", np.concatenate(attended, axis=1))
    hidden = _linear(state, f"{at}mlp.fc1", _norm(state, f"{at}norm2", tokens))
    return tokens + state.get(f"{at}ls2.gamma", 1.0) * _linear(state, f"{at}mlp.fc2", hidden * (1 + _ERF(hidden / np.sqrt(2))) / 2)


def _projections(state: Arrays, at: str, tokens: np.ndarray) -> list[np.ndarray]:
    """Queries, keys and values."""
    return np.split(_linear(state, f"{at}attn.qkv", _norm(state, f"{at}norm1", tokens)), 3, axis=1)


def _linear(state: Arrays, at: str, x: np.ndarray) -> np.ndarray:
    return x @ state[f"{at}.weight"].T + state[f"{at}.bias"]


def _norm(state: Arrays, at: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6) * state[f"{at}.weight"] + state[f"{at}.bias"]
