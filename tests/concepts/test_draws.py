"""What a training step draws of a curated pair."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from ovskit.core.concepts.draws import chances, clusters_of, draw_concepts
from ovskit.core.formats.streams.curated import Concept, CuratedPair


def pair(*concepts: tuple[str, float, int], key: str = "a") -> CuratedPair:
    listed = tuple(Concept(name, score, 0.2, cluster, False, ()) for name, score, cluster in concepts)
    return CuratedPair(1, key, "a.jpg", ("a caption",), listed, ())


PAIR = pair(("grass", 1.4, 0), ("lawn", 1.3, 0), ("fox", 1.2, 1), ("sky", 1.0, 2), ("cloud", 0.9, 2))


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ((1.2, 1.0), (0.549834, 0.450166)),
        ((1.4, 1.2, 1.0), (0.401760, 0.328933, 0.269307)),
        ((math.log(3), 0.0), (0.75, 0.25)),
    ],
)
def test_the_worked_chances(scores: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    found = chances([Concept("x", score, 0.0, 0, False, ()) for score in scores], 1.0)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_a_low_temperature_takes_the_best() -> None:
    listed = clusters_of(PAIR)[0]
    assert chances(listed, 0) == [1, 0]
    assert chances(listed, 0.01)[0] > 0.9999
    assert chances(listed, 1e-300) == [1, 0]


def test_one_of_each_cluster_in_their_order_and_as_often_as_it_should() -> None:
    drawn = [draw_concepts(PAIR, seed=0, step=step) for step in range(4000)]
    assert {one[1] for one in drawn} == {"fox"}
    for place, names in ((0, ("grass", "lawn")), (2, ("sky", "cloud"))):
        often = Counter(one[place] for one in drawn)
        assert often.keys() == set(names)
        expected = chances(clusters_of(PAIR)[place], 1.0)[0]
        assert abs(often[names[0]] / 4000 - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_a_draw_depends_on_seed_step_and_key_alone() -> None:
    one = [draw_concepts(PAIR, seed=1, step=step) for step in range(50)]
    assert one == [draw_concepts(PAIR, seed=1, step=step) for step in range(50)]
    assert one != [draw_concepts(PAIR, seed=2, step=step) for step in range(50)]
    other = pair(*((c.name, c.score, c.cluster) for c in PAIR.concepts), key="b")
    assert one != [draw_concepts(other, seed=1, step=step) for step in range(50)]


def test_the_whole_archive_without_replacement_and_the_best() -> None:
    for step in range(200):
        assert len(set(draw_concepts(PAIR, seed=0, step=step, sampling="softmax"))) == 3
    assert sorted(draw_concepts(PAIR, seed=0, step=0, sampling="softmax", texts=9)) == sorted(c.name for c in PAIR.concepts)
    assert {draw_concepts(PAIR, seed=0, step=step, sampling="naive") for step in range(9)} == {("grass", "lawn", "fox")}


def test_an_empty_archive_draws_nothing() -> None:
    for sampling in ("cluster", "softmax", "naive"):
        assert draw_concepts(pair(), seed=0, step=0, sampling=sampling) == ()  # type: ignore[arg-type]
