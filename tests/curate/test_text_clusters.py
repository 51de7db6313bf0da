"""Clusters of concepts: of what is apart, of little, of equal ones, and never worse than nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.curate.kernels import unit
from ovskit.core.curate.text_clusters import cluster_concepts, seeds_of
from tests.reference.curation import objective

SEEDS = seeds_of(["a", "b"], 0)


def clusters(texts: np.ndarray, starts: list[int], count: int = 3, seeds: np.ndarray = SEEDS) -> list[int]:
    ids = np.arange(starts[-1], dtype=np.int32)
    return cluster_concepts(unit(texts.astype(np.float32)), ids, np.array(starts), count, seeds).tolist()


def test_groups_that_are_apart_are_found_in_the_order_of_their_best() -> None:
    rng = np.random.default_rng(0)
    groups = [2, 0, 0, 1, 2, 1, 0, 2]
    texts = np.eye(3)[groups] + 0.05 * rng.normal(size=(8, 3))
    numbers = {2: 0, 0: 1, 1: 2}  # as they come
    for k in range(20):
        assert clusters(texts, [0, 8], seeds=seeds_of([str(k)], k)) == [numbers[g] for g in groups]


def test_no_more_concepts_than_clusters_are_one_each() -> None:
    assert clusters(np.eye(5), [0, 3, 5]) == [0, 1, 2, 0, 1]
    assert clusters(np.eye(5), [0, 0, 0]) == []


def test_equal_texts_do_not_leave_a_cluster_empty() -> None:
    assert sorted(set(clusters(np.ones((6, 4)), [0, 6]))) == [0, 1, 2]


def test_seeds_are_of_seed_and_key_alone() -> None:
    assert seeds_of(["a", "b"], 1).tolist() == [seeds_of(["a"], 1)[0], seeds_of(["b"], 1)[0]]
    assert len({*seeds_of(["a", "b"], 1).tolist(), *seeds_of(["a", "b"], 2).tolist()}) == 4
    assert seeds_of(["\udcff", "\ud800"], 0).dtype == np.uint64


@settings(max_examples=60, deadline=None)
@given(m=st.integers(4, 12), seed=st.integers(0, 1 << 30), copies=st.booleans())
def test_it_is_a_clustering_that_no_single_move_makes_better(m: int, seed: int, copies: bool) -> None:
    rng = np.random.default_rng(seed)
    texts = unit(rng.normal(size=(m, 6)).astype(np.float32) + 0.5)
    if copies:
        texts[1] = texts[0]
    labels = np.array(clusters(texts, [0, m], seeds=seeds_of([str(seed)], 0)))
    assert sorted(set(labels.tolist())) == [0, 1, 2]
    assert [labels.tolist().index(k) for k in range(3)] == sorted(labels.tolist().index(k) for k in range(3))
    centres = unit(np.stack([texts[labels == k].sum(axis=0) for k in range(3)]))
    cosines = texts.astype(np.float64) @ centres.T.astype(np.float64)
    sizes = np.bincount(labels)
    settled = cosines[np.arange(m), labels] >= cosines.max(axis=1) - 1e-6
    assert settled[sizes[labels] > 1].all()
    assert objective(texts, labels) >= objective(texts, np.zeros(m)) - 1e-9
