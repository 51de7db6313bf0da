"""bench/curate_photographs.py: what stands in for text rows, what is ranked, and what counts as found."""

from __future__ import annotations

import numpy as np
import pytest
from curate_photographs import KS, Photographs, by_votes, curated, first, in_a_cone, interval, means, measured, without_own

from ovskit.core.curate.kernels import unit
from ovskit.core.curate.relevance import Archive


def archive() -> Archive:
    """Two photographs: the first one's own caption names concept 4."""
    ids, score = np.array([4, 1, 2, 3], np.int32), np.array([1.5, 1.2, 1.0, 0.5])
    own, seen = np.array([True, False, False, False]), np.array([0b11, 0b01, 0b110, 0b1], np.uint64)
    return Archive(ids, score, score, own, seen, np.array([0, 3, 4]), 0)


def test_recall_and_precision_by_hand() -> None:
    found = measured([[1, 2, 3], [5], [7]], [frozenset({1, 3, 8, 9}), frozenset({6}), frozenset()], 3)
    np.testing.assert_allclose(found, [[2 / 4, 0], [2 / 3, 0]])  # the third photograph misses nothing


def test_what_the_own_caption_names_is_not_ranked() -> None:
    found = without_own(archive())
    assert (found.ids.tolist(), found.starts.tolist()) == ([1, 2, 3], [0, 2, 3])
    assert first(found) == [[1, 2], [3]]


def test_votes_count_neighbours_and_then_the_set() -> None:
    assert by_votes(without_own(archive()), np.zeros(5, np.int64)) == [[2, 1], [3]]
    even = without_own(archive())._replace(seen=np.ones(3, np.uint64))
    assert by_votes(even, np.array([0, 1, 9, 0, 0])) == [[2, 1], [3]]
    assert by_votes(even, np.array([0, 9, 1, 0, 0])) == [[1, 2], [3]]


def test_a_concepts_row_is_the_mean_of_its_photographs() -> None:
    rows, known = means(np.array([[1, 0], [0, 1], [0, 1]], np.float32), [(0, 1), (0,), ()], 3)
    np.testing.assert_allclose(rows, [[np.sqrt(0.5), np.sqrt(0.5)], [1, 0], [0, 0]], atol=1e-6)
    assert known.tolist() == [True, True, False]
    rows, known = means(np.array([[1, 0], [0, 1], [0, 1]], np.float32), [(0, 1), (0,), (2,)], 3, 1)
    np.testing.assert_allclose(rows, [[1, 0], [1, 0], [0, 1]], atol=1e-6)
    assert known.all()


def test_a_cone_raises_cosines() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32))
    np.testing.assert_allclose(in_a_cone(rows) @ in_a_cone(rows).T, (1 + rows @ rows.T) / 2, atol=1e-6)


def test_an_interval_holds_the_mean_and_is_as_wide_as_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=500)
    low, high = interval(values, 4000)
    half = 1.96 * values.std() / np.sqrt(500)
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.15 * half), pytest.approx(values.mean() + half, abs=0.15 * half))


def test_photographs_of_a_scene_tell_each_other_what_they_miss() -> None:
    """Three scenes of three concepts; a caption names two of them. Neighbours know the third, chance and frequency do not."""
    rng = np.random.default_rng(0)
    scene = np.arange(90) % 3
    skipped = rng.integers(0, 3, 90)
    concepts = [[3 * s, 3 * s + 1, 3 * s + 2] for s in scene.tolist()]
    missed = [frozenset({one[k]}) for one, k in zip(concepts, skipped.tolist(), strict=True)]
    named = [tuple(sorted(set(one) - lost)) for one, lost in zip(concepts, missed, strict=True)]
    rows = unit((np.eye(3, 8)[scene] + 0.1 * rng.normal(size=(90, 8))).astype(np.float32))
    part = Photographs([f"{k:02d}" for k in range(90)], named, missed, rows, np.zeros(90, np.int64))
    texts, known = means(rows, named, 10)
    assert known.tolist() == [True] * 9 + [False]
    captions = unit(np.stack([texts[list(one)].sum(axis=0) for one in named]))
    found, about = curated(part, texts, known, captions, 8)
    recall = {method: measured(by_k[1], missed, 1)[0].mean() for method, by_k in found.items()}
    assert min(recall[method] for method in ("naive", "guided", "code", "raised", "cluster", "counted")) > 0.95
    assert recall["frequent"] < 0.4
    assert about["held"] > 0.95
    assert about["known"] == 1
    assert all(set(one).isdisjoint(own) for by_k in found.values() for k in KS for one, own in zip(by_k[k], named, strict=True))
