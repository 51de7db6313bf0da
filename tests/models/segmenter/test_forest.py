"""Forests from ancestor probabilities: what holds for any, and a slow reading of the rule."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.models.segmenter.forest import acyclic, forest

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(0, 9)


def drawn(seed: int, n: int, *, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and areas; with ``levels`` of few different values, so that many are equal."""
    rng = np.random.default_rng(seed)
    if levels is None:
        return rng.random((n, n)), rng.random(n)
    return rng.integers(0, levels + 1, (n, n)) / levels, rng.integers(1, 3, n).astype(float)


def reached(edges: np.ndarray) -> np.ndarray:
    """[i, j]: there is a way from i to j."""
    found = edges.copy()
    for via, i, j in product(range(len(edges)), repeat=3):
        found[i, j] |= found[i, via] & found[via, j]
    return found


def is_forest(parent: np.ndarray) -> bool:
    for node in range(len(parent)):
        for _ in range(len(parent) + 1):
            if node < 0:
                break
            node = parent[node]
        if node >= 0:
            return False
    return True


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIZES, st.sampled_from([None, 1, 3]), st.floats(0, 1))
def test_always_a_forest_along_edges(seed: int, n: int, levels: int | None, threshold: float) -> None:
    chance, areas = drawn(seed, n, levels=levels)
    parent, edges = forest(chance, areas, threshold), acyclic(chance, areas, threshold)
    assert parent.dtype == np.int64
    assert parent.shape == (n,)
    assert is_forest(parent)
    assert not reached(edges).diagonal().any()
    for child, above in enumerate(parent):
        assert edges[above, child] if above >= 0 else not edges[:, child].any()


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, st.floats(0, 1))
def test_cycles_are_broken_at_their_weakest_edge(seed: int, n: int, threshold: float) -> None:
    chance, areas = drawn(seed, n)
    edges = chance >= threshold
    np.fill_diagonal(edges, False)
    while (cyclic := edges & reached(edges).T).any():
        edges[np.unravel_index(np.where(cyclic, chance, np.inf).argmin(), edges.shape)] = False
    assert np.array_equal(acyclic(chance, areas, threshold), edges)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_a_closed_forest_is_recovered(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    parent = np.full(n, -1)
    for k in range(1, n):
        parent[order[k]] = order[rng.integers(0, k)] if rng.random() < 0.8 else -1
    above = np.zeros((n, n), dtype=bool)
    for node in range(n):
        step = parent[node]
        while step >= 0:
            above[step, node] = True
            step = parent[step]
    chance = np.where(above, rng.uniform(0.5, 1, (n, n)), rng.uniform(0, 0.499, (n, n)))
    assert np.array_equal(forest(chance, rng.random(n)), parent)


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, st.sampled_from([None, 2]), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_keeps_less(seed: int, n: int, levels: int | None, first: float, second: float) -> None:
    chance, areas = drawn(seed, n, levels=levels)
    low, high = sorted((first, second))
    assert np.array_equal(acyclic(chance, areas, high), acyclic(chance, areas, low) & (chance >= high))
    assert not ((forest(chance, areas, low) < 0) & (forest(chance, areas, high) >= 0)).any()


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES)
def test_the_order_of_the_masks_does_not_matter(seed: int, n: int) -> None:
    chance, areas = drawn(seed, n)
    order = np.random.default_rng(seed + 1).permutation(n)
    moved = forest(chance[np.ix_(order, order)], areas[order])
    back = np.where(moved < 0, -1, order[moved]) if n else moved
    assert np.array_equal(back, forest(chance, areas)[order])


def test_the_nearest_ancestor_and_its_ties() -> None:
    chance = np.zeros((4, 4))
    chance[0, [1, 3]] = chance[1, 3] = 0.9
    assert forest(chance, np.arange(4)).tolist() == [-1, 0, -1, 1]  # the deepest
    chance[0, 1], chance[2, 3] = 0, 0.8
    assert forest(chance, [9, 5, 1, 1]).tolist() == [-1, -1, -1, 1]  # then the most probable, then the smallest
    chance[2, 3] = 0.9
    assert forest(chance, [9, 5, 5, 1]).tolist() == [-1, -1, -1, 1]  # then the first


def test_two_that_are_each_others_ancestor() -> None:
    chance = np.array([[0, 0.7], [0.6, 0]])
    assert forest(chance, [1, 2]).tolist() == [-1, 0]
    assert forest(np.full((2, 2), 0.7), [1, 2]).tolist() == [1, -1]  # equally sure: the larger one is above


def test_a_full_set_of_queries() -> None:
    chance, areas = drawn(0, 300)
    assert is_forest(forest(chance, areas))


@pytest.mark.parametrize(
    ("chance", "areas", "message"),
    [
        (np.zeros((2, 3)), np.zeros(2), "expected"),
        (np.zeros((2, 2)), np.zeros(3), "expected"),
        (np.full((2, 2), np.nan), np.zeros(2), "not finite"),
        (np.zeros((1, 1)), np.array([np.inf]), "not finite"),
    ],
)
def test_refused(chance: np.ndarray, areas: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forest(chance, areas)
