"""Smoothing a grid of features within what belongs together: a diffusion whose conductance falls where features differ.

After Perona and Malik ("Scale-space and edge detection using anisotropic diffusion", PAMI 1990), on a grid of vectors. It takes
out what varies inside a region, so that the merging's greedy choices follow less noise, and leaves the steps between regions.
Weights are fixed from the features as they came, which makes it linear, hence stable: every step replaces a patch by a
weighted mean of itself and its four neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch

_ENTRIES = 4096
_REACH = 16.0  # exp(−16) is as good as nothing


def conductance(distance: torch.Tensor) -> torch.Tensor:
    """exp(−distance) for distances ≥ 0, by a table in steps of 1/256: the same bits on any number of threads; float32."""
    return tabulated(_falling, 0.0, _REACH, distance)


def probability(logit: torch.Tensor) -> torch.Tensor:
    """The logistic function by a table in steps of 1/128, from −16 to 16; float32."""
    return tabulated(_logistic, -_REACH, _REACH, logit)


def tabulated(function: Callable[[float], float], low: float, high: float, x: torch.Tensor) -> torch.Tensor:
    """``function`` (float to float) of every element, at the nearest of 4,096 steps from ``low`` to ``high``, beyond which it is held.

    Vectorised exponentials may round differently at the end of a thread's share; a table cannot.
    """
    place = torch.round((x.clamp(low, high) - low) * (_ENTRIES / (high - low))).long()
    return _table(function, low, high, x.device)[place]


@cache
def _table(function: Callable[[float], float], low: float, high: float, device: torch.device) -> torch.Tensor:
    return torch.tensor([function(low + (high - low) * k / _ENTRIES) for k in range(_ENTRIES + 1)], dtype=torch.float32, device=device)


def _falling(x: float) -> float:
    return math.exp(-x)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def diffuse(features: torch.Tensor, right: torch.Tensor, below: torch.Tensor, steps: int) -> torch.Tensor:
    """``features`` (b, c, h, w) after ``steps`` steps; a new tensor.

    ``right`` (b, 1, h, w − 1) and ``below`` (b, 1, h − 1, w) are the conductances ≥ 0 between neighbours. A step is
    x ← (x + Σ w·x_neighbour) / (1 + Σ w).
    """
    total = torch.ones_like(features[:, :1])
    for weight, here, there in _sides(right, below):
        total[here] += weight
        total[there] += weight
    share = 1 / total
    x = features.clone()
    for _ in range(steps):
        gathered = x.clone()
        for weight, here, there in _sides(right, below):
            gathered[here] += weight * x[there]
            gathered[there] += weight * x[here]
        x = gathered * share
    return x


def _sides(right: torch.Tensor, below: torch.Tensor) -> tuple[tuple[torch.Tensor, tuple[slice, ...], tuple[slice, ...]], ...]:
    """Each direction's weights, and the places that they join."""
    every, first, last = slice(None), slice(None, -1), slice(1, None)
    return (right, (every, every, every, first), (every, every, every, last)), (below, (every, every, first), (every, every, last))


def neighbour_distances(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over channels of the squared difference to the neighbour on the right (b, 1, h, w − 1) and below (b, 1, h − 1, w).

    float64, in which the sums are exact for quantised features (see ``whitening``).
    """
    features = features.double()
    across = features[..., :, 1:] - features[..., :, :-1]
    down = features[..., 1:, :] - features[..., :-1, :]
    return (across * across).mean(dim=1, keepdim=True), (down * down).mean(dim=1, keepdim=True)
