"""The generated world: what it says of itself, the cosines that it is made for, and the scores of chosen terms."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ovskit.core.curate.relevance import Named
from tests.curate.conditions import Score, by_language, by_vision, score
from tests.curate.world import CONCEPTS, RARE, World, make_world


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "synonyms"])
def world(request: pytest.FixtureRequest) -> World:
    return make_world(4, 1500, synonyms=request.param)


def terms_of(world: World, k: int) -> list[str]:
    return [world.terms[term] for term in world.named.ids[world.named.starts[k] : world.named.starts[k + 1]]]


def test_images_are_whole_and_have_two_to_four_things_of_either_kind(world: World) -> None:
    np.testing.assert_allclose(world.areas.sum(axis=1), 1)
    counts = world.truth.sum(axis=1)
    assert (sorted(set(counts.tolist())), counts.mean()) == ([2, 3, 4], pytest.approx(3, abs=0.1))
    assert world.truth[:, RARE].any(axis=1).all()
    assert world.truth[:, ~RARE].any(axis=1).all()
    least = np.where(world.truth, world.areas, 1).min(axis=1)
    assert (least >= 0.3 / 3).all()  # the largest part, which is cut, is a third or more


def test_captions_name_what_the_image_shows_as_often_as_they_should(world: World) -> None:
    for k in range(len(world.keys)):
        words = [word for word in re.findall("[a-z]+", world.captions[k].lower()) if word not in ("a", "picture", "of", "and")]
        assert sorted(words) == sorted(terms_of(world, k))
    row = np.repeat(np.arange(len(world.keys)), np.diff(world.named.starts))
    named = np.zeros_like(world.truth)
    named[row, world.concept[world.named.ids]] = True
    assert not (named & ~world.truth).any()
    assert len(row) == named.sum()  # one surface form of each
    for kind, chance in ((~RARE, 0.9), (RARE, 0.15)):
        shown = world.truth[:, kind].sum()
        assert named[:, kind].sum() / shown == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / shown))


def test_surface_forms_are_used_alike_and_mean_nearly_the_same() -> None:
    world = make_world(2, 1500, synonyms=True)
    assert [world.terms[k] for k in np.flatnonzero(world.concept == 0)] == list(CONCEPTS[0])
    used = np.bincount(world.named.ids, minlength=48).reshape(16, 3)
    assert (np.abs(used / used.sum(axis=1, keepdims=True) - 1 / 3) < 4 * np.sqrt(2 / 9 / used.sum(axis=1, keepdims=True))).all()
    cosines = world.texts.astype(np.float64) @ world.texts.T.astype(np.float64)
    same = world.concept[:, None] == world.concept
    assert cosines[same].min() > cosines[~same].mean()


def test_cosines_are_about_those_of_an_encoder_that_prefers_the_salient() -> None:
    """Over six worlds, since sixteen random directions make one differ from another."""
    rows = []
    for seed in range(6):
        world = make_world(seed, 500)
        cosines = world.images.astype(np.float64) @ world.texts.T.astype(np.float64)
        shown = world.truth
        parts = (cosines[:, ~RARE][shown[:, ~RARE]], cosines[:, RARE][shown[:, RARE]], cosines[~shown])
        rows.append([*(part.mean() for part in parts), cosines.min()])
    salient, inconspicuous, absent, least = np.mean(rows, axis=0)
    assert (salient, inconspicuous, absent) == (pytest.approx(0.51, abs=0.02), pytest.approx(0.40, abs=0.02), pytest.approx(0.30, abs=0.02))
    assert -0.2 < least < 0  # so that what has no meaning for Eq. 7 happens


def test_rows_have_length_1_and_all_depends_on_the_seed_alone(world: World) -> None:
    for rows in (world.images, world.caption_rows, world.texts):
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    one, again, other = (make_world(seed, 50) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.images, again.images)
    assert one.captions == again.captions
    assert one.captions != other.captions


def test_neighbours_are_others_the_most_similar_first(world: World) -> None:
    for rows, found in ((world.images, by_vision(world, 5)), (world.caption_rows, by_language(world))):
        cosines = world.images.astype(np.float64) @ rows.T.astype(np.float64)
        np.fill_diagonal(cosines, -1)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : found.shape[1]]
        np.testing.assert_array_equal(np.take_along_axis(cosines, found, 1), np.take_along_axis(cosines, order, 1))


def test_scores_by_hand() -> None:
    areas = np.zeros((2, 16))
    areas[0, [0, 8]] = 0.5  # an airplane, grass
    areas[1, [0, 1, 9]] = 1 / 3  # an airplane, a dog, a road
    none = np.zeros((2, 64), np.float32)
    nothing = Named(np.zeros(0, np.int32), np.zeros(3, np.int64))
    world = World(("a", "b"), ("", ""), none, none, (), none, np.repeat(np.arange(16), 3), nothing, areas)
    chosen = Named(np.array([0, 1, 24, 3, 30], np.int32), np.array([0, 3, 5]))  # airplane, plane, grass; dog, stone
    assert score(world, chosen) == Score(4 / 5, 3 / 5, 1 / 2, 5 / 2, 3 / 2)
