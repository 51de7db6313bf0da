"""Guided ranking: the worked examples of the specification, and an obvious reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.curate.kernels import unit
from ovskit.core.curate.relevance import LEAST, Archive, Named, rank
from tests.reference.curation import relevance

FOX, GRASS, HORSE, WATER = range(4)


def named(*lists: list[int]) -> Named:
    return Named(np.array([k for one in lists for k in one], np.int32), np.cumsum([0, *map(len, lists)]).astype(np.int64))


def with_cosines(table: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, c) and texts (C, c), of length 1, whose products are ``table`` (n, C)."""
    wanted = np.array(table)
    n, count = wanted.shape
    texts = np.eye(count, count + n)
    rows = np.zeros((n, count + n))
    rows[:, :count] = wanted
    rows[np.arange(n), count + np.arange(n)] = np.sqrt(1 - np.square(wanted).sum(axis=1))
    return rows.astype(np.float32), texts.astype(np.float32)


def scores(archive: Archive) -> dict[int, float]:
    return dict(zip(archive.ids.tolist(), archive.score.tolist(), strict=True))


EXAMPLE = [[0.32, 0.24, 0.12, 0.20], [0.30, 0.16, 0.30, 0.18], [0.28, 0.20, 0.28, 0.20], [0.26, 0.12, 0.36, 0.22]]


def example(**how: object) -> Archive:
    rows, texts = with_cosines(EXAMPLE)
    theirs = named([FOX, GRASS], [GRASS], [HORSE])
    return rank(rows[:1], rows[1:], texts, np.array([[0, 1, 2]]), named([FOX, WATER]), theirs, **how)  # type: ignore[arg-type]


def test_the_worked_example_by_equation_8() -> None:
    found = example()
    assert found.ids.tolist() == [GRASS, FOX, WATER, HORSE]
    np.testing.assert_allclose(found.score, [1.44, 1.352258, 1.2, 0.62], atol=1e-6)
    np.testing.assert_allclose(found.alignment, [0.24, 0.32, 0.20, 0.12], atol=1e-6)
    assert found.own.tolist() == [False, True, True, False]
    assert found.seen.tolist() == [0b011, 0b001, 0, 0b100]
    assert found.starts.tolist() == [0, 4]
    assert found.clamped == 0


def test_the_worked_example_as_the_code_has_it() -> None:
    found = example(score="code")
    assert found.ids.tolist() == [FOX, GRASS, WATER, HORSE]
    np.testing.assert_allclose(found.score, [1.921147, 1.866667, 1.555556, 0.833333], atol=1e-6)


def test_naive_ranking_is_the_alignment_alone() -> None:
    found = example(guided=False)
    assert found.ids.tolist() == [FOX, GRASS, WATER, HORSE]
    np.testing.assert_allclose(found.score, [0.32, 0.24, 0.20, 0.12], atol=1e-6)


def test_without_the_own_caption_its_words_count_only_if_a_neighbour_has_them() -> None:
    found = example(include_own=False)
    assert found.ids.tolist() == [GRASS, FOX, HORSE]
    assert dict(zip(found.ids.tolist(), found.own.tolist(), strict=True))[FOX]


@pytest.mark.parametrize(("own", "others", "score"), [(0.30, [0.20, 0.25], 1.5), (0.10, [0.30, 0.30, 0.30], 0.5), (0.30, [], 1.3)])
def test_one_concept(own: float, others: list[float], score: float) -> None:
    rows, texts = with_cosines([[own], *([value] for value in others)])
    places = np.arange(len(others))[None] if others else np.array([[-1]])
    found = rank(rows[:1], rows[1:], texts, places, named([0]), named(*[[0]] * len(others)))
    np.testing.assert_allclose(found.score, [score], atol=1e-6)


def test_what_is_not_alike_at_all_is_clamped_and_counted() -> None:
    rows, texts = with_cosines([[-0.2, 0.3], [-0.1, 0.2]])
    found = rank(rows[:1], rows[1:], texts, np.array([[0]]), named([0]), named([0, 1]))
    assert found.clamped == 2
    assert scores(found)[0] == pytest.approx(LEAST + 2 * LEAST / (LEAST + LEAST))


def test_no_concept_at_all() -> None:
    rows, texts = with_cosines([[0.1], [0.2]])
    found = rank(rows[:1], rows[1:], texts, np.array([[0]]), named([]), named([]))
    assert (found.ids.tolist(), found.starts.tolist()) == ([], [0, 0])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), guided=st.booleans(), code=st.booleans())
def test_it_is_the_reference(data: st.DataObject, guided: bool, code: bool) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    count, m, n, q, width = (data.draw(st.integers(1, most)) for most in (7, 6, 4, 3, 9))
    texts, others, anchors = (unit(rng.normal(size=(k, width)).astype(np.float32)) for k in (count, m, q))
    words = [sorted(set(rng.integers(0, count, rng.integers(0, 4)).tolist())) for _ in range(q + m)]
    neighbours = np.stack([rng.permutation(max(n, m))[:n] for _ in range(q)])
    neighbours[neighbours >= m] = -1
    found = rank(
        anchors, others, texts, neighbours, named(*words[:q]), named(*words[q:]), guided=guided, score="code" if code else "eq8"
    )  # fmt: skip
    f = lambda row: {c: float(row.astype(np.float64) @ texts[c].astype(np.float64)) for c in range(count)}  # noqa: E731
    for k in range(q):
        near = [i for i in neighbours[k].tolist() if i >= 0]
        listed = sorted({*words[k], *(c for i in near for c in words[q + i])})
        expected = relevance(
            {c: f(anchors[k])[c] for c in listed}, [f(others[i]) for i in near], [words[q + i] for i in near], guided=guided, code=code
        ) if listed else {}  # fmt: skip
        part = slice(found.starts[k], found.starts[k + 1])
        assert sorted(found.ids[part].tolist()) == listed
        for concept, value in zip(found.ids[part].tolist(), found.score[part].tolist(), strict=True):
            assert value == pytest.approx(expected[concept], rel=1e-6)
        assert np.all(np.diff(found.score[part]) <= 0)
