"""Position embeddings on other grids, against the interpolation written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.models.backbones.vit import Positions, resolve_layer, rows_of
from ovskit.core.runtime.errors import UsageError
from tests.reference import vit


def cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(distance)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def clamped(size: int, to: int) -> np.ndarray:
    """Weights (to, size) of bicubic interpolation, a = −0.75, border samples repeated: torch without antialiasing."""
    weights = np.zeros((to, size))
    for row in range(to):
        centre = (row + 0.5) * size / to - 0.5
        for sample in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[row, min(max(sample, 0), size - 1)] += cubic(np.array(centre - sample), -0.75)
    return weights


def antialiased(size: int, to: int) -> np.ndarray:
    """The same for a = −0.5, kernel as wide as the shrinking, weights renormalised at the border: torch with antialiasing."""
    scale = max(size / to, 1)
    centres = (np.arange(to)[:, None] + 0.5) * size / to - 0.5
    weights = cubic((np.arange(size)[None] - centres) / scale, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(
    grid=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    to=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    prefix=st.integers(0, 2),
    antialias=st.booleans(),
)
def test_bicubic(grid: tuple[int, int], to: tuple[int, int], prefix: int, antialias: bool) -> None:
    table = torch.randn(1, prefix + grid[0] * grid[1], 3, generator=torch.Generator().manual_seed(sum(grid)))
    positions = Positions(table, grid, prefix, antialias=antialias)
    weights = antialiased if antialias else clamped
    image = table[0, prefix:].double().numpy().reshape(*grid, 3)
    expected = np.einsum("ai,bj,ijc->abc", weights(grid[0], to[0]), weights(grid[1], to[1]), image)
    if to == grid:
        expected = image
    for _ in range(2):  # the second time from memory
        found = positions.at(to)
        assert torch.equal(found[:, :prefix], table[:, :prefix])
        np.testing.assert_allclose(found[0, prefix:].numpy().reshape(*to, 3), expected, atol=2e-5)
    assert torch.equal(positions.at(grid), table)


@settings(deadline=None, max_examples=25)
@given(grid=st.tuples(st.integers(2, 9), st.integers(2, 9)), to=st.tuples(st.integers(1, 20), st.integers(1, 20)), prefix=st.integers(0, 2))
def test_by_scale_is_as_dino_does(grid: tuple[int, int], to: tuple[int, int], prefix: int) -> None:
    table = torch.randn(1, prefix + grid[0] * grid[1], 2, generator=torch.Generator().manual_seed(sum(grid)))
    found = Positions(table, grid, prefix, antialias=False, sampling="scale").at(to)
    assert torch.equal(found[:, :prefix], table[:, :prefix])
    expected = vit.positions(table[0, prefix:].double().numpy().reshape(*grid, 2), to)
    np.testing.assert_allclose(found[0, prefix:].numpy().reshape(*to, 2), expected, atol=2e-5)


def test_rows_of_a_joint_projection_are_views() -> None:
    weight, bias = torch.arange(12.0).reshape(6, 2), torch.arange(6.0)
    for facet, first in (("query", 0), ("key", 2), ("value", 4)):
        rows, offset = rows_of(weight, bias, facet)  # type: ignore[arg-type]
        assert offset is not None
        assert torch.equal(rows, weight[first : first + 2])
        assert torch.equal(offset, bias[first : first + 2])
        assert rows.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert rows_of(weight, None, "key")[1] is None


@given(depth=st.integers(1, 40), layer=st.integers(-50, 50))
def test_layers_count_from_either_end(depth: int, layer: int) -> None:
    if -depth <= layer < depth:
        assert resolve_layer(layer, depth, "net") == list(range(depth))[layer]
    else:
        with pytest.raises(UsageError, match=f"net has {depth} blocks"):
            resolve_layer(layer, depth, "net")
