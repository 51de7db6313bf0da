"""What patches attend to: rows that sum to 1, the fixture of the equations, symmetry, and regions that are merged."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.models.backbones.dense import Attended
from ovskit.core.predict.dense.attention import (
    by_keys,
    by_queries,
    by_queries_and_keys,
    correlation_weights,
    mix,
    neighbourhood,
    proxy_weights,
)
from ovskit.core.predict.dense.merging import merged_regions
from tests.reference import dense_clip as reference

SEEDS = st.integers(0, 2**31 - 1)


def unit_rows(seed: int, count: int, spread: float = 1.0) -> torch.Tensor:
    """(1, count, 5) float32 rows of length 1 around a common direction; the smaller ``spread``, the closer."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(1, count, 5, generator=generator) * spread + torch.randn(5, generator=generator)
    return rows / rows.norm(dim=-1, keepdim=True)


def test_the_fixture_of_proxyclip() -> None:
    rows = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    expected = torch.tensor([[[1, 0, 0], [0, 0.645656, 0.354344], [0, 0.354344, 0.645656]]])
    torch.testing.assert_close(proxy_weights(rows, 1.2, 3.0), expected, rtol=0, atol=1e-6)


@given(SEEDS, st.integers(1, 12), st.floats(0, 2), st.floats(0.5, 2), st.floats(0.1, 10))
def test_rows_of_proxy_weights_sum_to_one_and_follow_the_equation(seed: int, count: int, spread: float, beta: float, gamma: float) -> None:
    rows = unit_rows(seed, count, spread)
    found = proxy_weights(rows, beta, gamma)[0]
    torch.testing.assert_close(found.sum(dim=1), torch.ones(count))
    assert (found.diagonal() > 0).all()
    similar = rows[0].double() @ rows[0].double().T
    if ((similar - beta * similar.mean()).abs() > 1e-5).all():  # at 0 rounding decides whether a pair counts
        torch.testing.assert_close(found.double(), reference.proxy_weights(rows[0].double(), beta, gamma), rtol=0, atol=1e-5)


@given(SEEDS, st.integers(1, 12), st.integers(-1, 4), st.floats(0, 10))
def test_rows_of_correlation_weights_sum_to_one_and_follow_the_equation(seed: int, count: int, most: int, scale: float) -> None:
    rows, labels = unit_rows(seed, count), np.random.default_rng(seed).integers(-1, most + 1, count)
    found = correlation_weights(rows, torch.from_numpy(labels)[None], scale)[0]
    torch.testing.assert_close(found.sum(dim=1), torch.ones(count))
    similar = rows[0].double() @ rows[0].double().T
    if ((similar - similar.mean()).abs() > 1e-5).all() or (labels >= 0).all():
        torch.testing.assert_close(
            found.double(), reference.correlation_weights(rows[0].double(), labels.tolist(), scale), rtol=0, atol=1e-5
        )


@given(SEEDS, st.integers(1, 20))
def test_weights_go_with_the_patches_when_these_change_places(seed: int, count: int) -> None:
    rows, random = unit_rows(seed, count), np.random.default_rng(seed)
    places, labels = torch.from_numpy(random.permutation(count)), torch.from_numpy(random.integers(0, 3, count))[None]
    values = torch.randn(1, count, 4, generator=torch.Generator().manual_seed(seed))
    for before, after in (
        (proxy_weights(rows, 1.2, 3.0), proxy_weights(rows[:, places], 1.2, 3.0)),
        (correlation_weights(rows, labels, 4.0), correlation_weights(rows[:, places], labels[:, places], 4.0)),
    ):
        if ((before > 0)[:, places][:, :, places] == (after > 0)).all():  # not if rounding decided
            torch.testing.assert_close(mix(after, values[:, places]), mix(before, values)[:, places], rtol=0, atol=1e-5)


@given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.integers(0, 2))
def test_attention_of_queries_and_of_keys(seed: int, rows: int, columns: int, prefix: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    block = Attended(*torch.randn(3, 2, 2, prefix + rows * columns, 4, generator=generator))
    window = neighbourhood(rows, columns, 1.5, prefix)
    found = by_queries(block, prefix), by_keys(block, prefix), by_keys(block, prefix, window), by_queries_and_keys(block, prefix)
    for b in range(2):
        for head in range(2):
            q, k, v = (part[b, head].double() for part in block)
            query, key = (reference.softmax(part @ part.T / 2)[prefix:] for part in (q, k))
            near = reference.softmax((k @ k.T / 2)[prefix:] + window.double())
            for one, weights in zip(found, (query, key, near, query + key), strict=True):
                torch.testing.assert_close(one[b, head].double(), weights @ v, rtol=0, atol=1e-5)


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.3, 8), st.integers(0, 3))
def test_the_gaussian_window(rows: int, columns: int, sigma: float, prefix: int) -> None:
    window = neighbourhood(rows, columns, sigma, prefix)
    assert window.shape == (rows * columns, prefix + rows * columns)
    assert (window[:, :prefix] == 0).all()
    patches = window[:, prefix:]
    torch.testing.assert_close(patches.diagonal(), torch.ones(rows * columns))
    torch.testing.assert_close(patches, patches.T)
    if columns > 1:
        torch.testing.assert_close(float(patches[0, 1]), float(np.exp(-1 / (2 * sigma**2))), rtol=1e-5, atol=1e-7)
    if rows > 1:
        torch.testing.assert_close(float(patches[0, columns]), float(np.exp(-1 / (2 * sigma**2))), rtol=1e-5, atol=1e-7)


@given(SEEDS, st.integers(1, 40), st.integers(-1, 8), st.floats(0.001, 1.5))
def test_regions_are_merged_as_dbscan_does(seed: int, count: int, most: int, eps: float) -> None:
    rows, labels = unit_rows(seed, count, 0.7)[0], np.random.default_rng(seed).integers(-1, most + 1, count).astype(np.int32)
    found = merged_regions(rows, labels, eps)
    expected = reference.merged(rows.double(), labels.tolist(), eps)
    assert found.dtype == np.int32
    assert same_partition(found.tolist(), expected)
    assert set(found.tolist()) - {-1} == set(range(len(set(found.tolist()) - {-1})))


def same_partition(one: list[int], other: list[int]) -> bool:
    """Whether two labellings differ by the names of labels alone, -1 being no name."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other)) and all((a < 0) == (b < 0) for a, b in pairs)
