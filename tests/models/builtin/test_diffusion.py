"""The diffusion against a dense matrix, and what is true of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.models.builtin.diffusion import conductance, diffuse, neighbour_distances, probability


def weights(seed: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random((1, 1, height, width - 1))).float(), torch.from_numpy(rng.random((1, 1, height - 1, width))).float()


def transition(right: torch.Tensor, below: torch.Tensor, height: int, width: int) -> np.ndarray:
    """One step as a matrix, written out edge by edge."""
    matrix = np.eye(height * width)
    for y in range(height):
        for x in range(width):
            here = y * width + x
            if x + 1 < width:
                matrix[here, here + 1] = matrix[here + 1, here] = float(right[0, 0, y, x])
            if y + 1 < height:
                matrix[here, here + width] = matrix[here + width, here] = float(below[0, 0, y, x])
    return matrix / matrix.sum(axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.integers(0, 4))
def test_diffusion_is_a_power_of_the_transition_matrix(seed: int, height: int, width: int, steps: int) -> None:
    right, below = weights(seed, height, width)
    features = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(1, 3, height, width))).float()
    found = diffuse(features, right, below, steps)[0].flatten(1).T.numpy()
    matrix = np.linalg.matrix_power(transition(right, below, height, width), steps)
    np.testing.assert_allclose(found, matrix @ features[0].flatten(1).T.double().numpy(), atol=1e-5)


def test_nothing_crosses_a_wall() -> None:
    features = torch.zeros(1, 1, 4, 6)
    features[..., 3:] = 1
    right, below = torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 6)
    right[..., 2] = 0
    assert torch.equal(diffuse(features, right, below, 50), features)
    assert not torch.equal(diffuse(features, torch.ones_like(right), below, 1), features)


def test_the_input_is_left_alone() -> None:
    features = torch.rand(1, 2, 3, 3)
    before = features.clone()
    diffuse(features, torch.ones(1, 1, 3, 2), torch.ones(1, 1, 2, 3), 3)
    assert torch.equal(features, before)


@pytest.mark.parametrize("x", [0.0, 0.1, 1.0, 5.0, 15.9, 100.0])
def test_conductance_is_the_exponential(x: float) -> None:
    assert float(conductance(torch.tensor([x]))[0]) == pytest.approx(math.exp(-min(x, 16)), rel=2e-3)


@pytest.mark.parametrize("x", [-50.0, -3.0, 0.0, 0.5, 4.0, 50.0])
def test_probability_is_the_logistic_function(x: float) -> None:
    assert float(probability(torch.tensor([x]))[0]) == pytest.approx(1 / (1 + math.exp(-max(-16.0, min(16.0, x)))), abs=1e-3)


def test_distances_are_those_of_neighbours() -> None:
    features = torch.tensor([[[[0.0, 1.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]]])  # (1, 2, 2, 2)
    right, below = neighbour_distances(features)
    assert right.flatten().tolist() == [0.5, 4.0]  # ((1−0)² + 0²) / 2, ((1−3)² + 2²) / 2
    assert below.flatten().tolist() == [4.5, 2.0]
