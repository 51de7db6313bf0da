"""Deformable attention against slow loops, and its start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovskit.core.models.pyramids.deformable_attention import DeformableAttention, centres, sample_and_sum
from tests.reference import deformable_attention as slow

SHAPES = [(4, 3), (2, 5), (1, 1)]
PLACES = sum(h * w for h, w in SHAPES)


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (2, PLACES, 3, 2), locations beyond the borders too, and weights."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, PLACES, 3, 2, generator=generator, dtype=torch.float64)
    locations = 1.6 * torch.rand(2, 7, 3, len(SHAPES), 2, 2, generator=generator, dtype=torch.float64) - 0.3
    return values, locations, torch.rand(2, 7, 3, len(SHAPES), 2, generator=generator, dtype=torch.float64)


def test_samples_as_the_slow_loops_do() -> None:
    values, locations, weights = drawn()
    found = sample_and_sum(values, SHAPES, locations, weights)
    expected = slow.sample_and_sum(values.numpy(), SHAPES, locations.numpy(), weights.numpy())
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_differences() -> None:
    inputs = [each[:1, :3] if k else each[:1] for k, each in enumerate(drawn(1))]
    for each in inputs:
        each.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, at, w: sample_and_sum(v, SHAPES, at, w), inputs)


def test_whole_attention_is_equation_3() -> None:
    torch.manual_seed(2)
    attention = DeformableAttention(6, heads=2, maps=len(SHAPES), places=3, inner=4).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    queries, references = torch.randn(2, 5, 6, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    values = torch.randn(2, PLACES, 6, dtype=torch.float64)
    found = attention(queries, references, values, SHAPES)
    parts = {name: tensor.detach().numpy() for name, tensor in attention.named_parameters()}
    expected = slow.attention(parts, 2, queries.numpy(), references.numpy(), values.numpy(), SHAPES)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_centres_are_where_sampling_gives_the_values_themselves() -> None:
    values, _, _ = drawn(3)
    at = centres(SHAPES, values.device)
    assert at.shape == (PLACES, 2)
    start = 0
    for level, (h, w) in enumerate(SHAPES):
        here = at[start : start + h * w].double()[None, :, None, None, None].expand(2, -1, 3, 1, 1, 2)
        own = values[:, start : start + h * w]
        found = sample_and_sum(own, SHAPES[level : level + 1], here, torch.ones(2, h * w, 3, 1, 1, dtype=torch.float64))
        torch.testing.assert_close(found, own.flatten(2), rtol=1e-5, atol=1e-5)
        start += h * w


def test_heads_start_in_different_directions_and_places_at_different_distances() -> None:
    attention = DeformableAttention(8, heads=4, maps=1, places=2)
    steps = attention.offsets.bias.detach().view(4, 2, 2)
    expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    torch.testing.assert_close(steps[:, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(steps[:, 1], 2 * expected, atol=1e-6, rtol=0)
    assert not attention.offsets.weight.any()
    assert not attention.weights.weight.any()


def test_samples_in_float32_under_autocast() -> None:
    torch.manual_seed(4)
    attention = DeformableAttention(16, heads=2, maps=1)
    shapes = [(40, 50)]
    queries, values = torch.randn(1, 6, 16), torch.randn(1, 2000, 16)
    references = torch.rand(6, 2)
    exact = attention(queries, references, values, shapes)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(queries, references, values, shapes)
    assert found.dtype == torch.bfloat16
    # The offsets are exact at the start, so what is left are the errors of values, not of places.
    torch.testing.assert_close(found.float(), exact, rtol=0.03, atol=0.03)


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads do not share 8 channels"):
        DeformableAttention(8, heads=3, maps=1)
