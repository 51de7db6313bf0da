"""Forests of masks against walks up, one mask at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.masks import forest, rle
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Image, Mask, MaskSet, Rle

IMAGE = Image(1, "a.png", 6, 4)


def outline(k: int) -> Rle:
    """A shape that no other of 24 has."""
    dense = np.zeros((4, 6), bool)
    dense.reshape(-1)[: k + 1] = True
    return rle.encode(dense)


def mask_of(k: int, **keys: object) -> Mask:
    one = outline(k)
    return Mask(k + 1, 1, one, rle.area(one), rle.bbox(one), **keys)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(-1, 30), st.booleans()), max_size=12), st.booleans())
def test_every_mask_keeps_the_ancestors_that_stay(nodes: list[tuple[int, bool]], with_runs: bool) -> None:
    parents = {k: parent for k, (parent, _) in enumerate(nodes) if 0 <= parent < k}

    def ancestors(k: int) -> list[int]:
        return [] if k not in parents else [parents[k], *ancestors(parents[k])]

    masks = tuple(
        mask_of(k, parent_id=parents[k] + 1 if k in parents else None, extra={"level": len(ancestors(k))}) for k in range(len(nodes))
    )
    stays = np.array([stay for _, stay in nodes], np.bool_)
    found = forest.kept_masks(MaskSet(IMAGE, masks, run_table([mask.rle for mask in masks]) if with_runs else None), stays)
    left = [k + 1 for k in np.flatnonzero(stays).tolist()]
    assert [mask.id for mask in found.masks] == left
    for mask in found.masks:
        above = [k + 1 for k in ancestors(mask.id - 1) if k + 1 in left]
        assert mask.parent_id == (above[0] if above else None)
        assert mask.extra["level"] == len(above)
    assert (found.runs is not None) == with_runs
    if found.runs is not None:
        assert found.runs.areas.tolist() == [mask.area for mask in found.masks]


def test_masks_without_a_level_get_none_and_nothing_else_changes() -> None:
    masks = tuple(mask_of(k, parent_id=k or None, score=0.5, extra={"threshold": 0.1}) for k in range(3))
    found = forest.kept_masks(MaskSet(IMAGE, masks), np.array([True, False, True]))
    assert found.masks[1].parent_id == 1
    assert [(mask.rle, mask.score, mask.extra) for mask in found.masks] == [(masks[k].rle, 0.5, {"threshold": 0.1}) for k in (0, 2)]
    whole = MaskSet(IMAGE, masks)
    assert forest.kept_masks(whole, np.ones(3, np.bool_)) is whole


def test_pruned_numbers_the_masks_that_are_left() -> None:
    parent = np.array([-1, 0, 1, 2, 1, -1])
    kept = np.array([True, False, True, False, True, True])
    assert forest.pruned_parents(parent, kept).tolist() == [-1, 0, 0, -1]
    assert forest.pruned_parents(parent, np.zeros(6, np.bool_)).tolist() == []


def test_a_parent_that_is_not_there_is_lost() -> None:
    masks = [mask_of(0), mask_of(1, parent_id=1), mask_of(2, parent_id=7)]
    assert forest.parent_places(masks).tolist() == [-1, 0, forest.LOST]
    assert forest.levels(forest.parent_places(masks)).tolist() == [0, 1, 0]


@given(st.lists(st.integers(-2, 9), max_size=10))
def test_levels_and_cycles_are_what_a_walk_finds(parents: list[int]) -> None:
    parent = np.array([p if p < len(parents) else -1 for p in parents], np.int64)
    steps, cyclic = [], set()
    for k in range(len(parent)):
        way, at = [k], int(parent[k])
        while at >= 0 and at not in way:
            way.append(at)
            at = int(parent[at])
        steps.append(len(way) - 1)
        if at == k:
            cyclic.add(k)
    assert forest.levels(parent).tolist() == steps
    member = forest.cycle(parent)
    assert (member in cyclic) if cyclic else member == -1


@pytest.mark.parametrize(("parents", "first"), [((0,), 0), ((1, 0), 0), ((-1, 2, 3, 1), 1), ((1, 2, 2), 2), ((2, 2, 1), 2)])
def test_the_first_way_that_comes_round_says_which_mask_it_is(parents: tuple[int, ...], first: int) -> None:
    assert forest.cycle(np.array(parents)) == first
