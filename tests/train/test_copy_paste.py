"""Copy-paste: what is pasted is the other photograph's, parts come along, what lies below is cut, and nothing is half hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks.rle import encode
from ovskit.core.masks.runs import run_table
from ovskit.core.records import RunTable
from ovskit.core.train.views import copy_paste
from ovskit.core.train.views.copy_paste import Layer, PasteOptions
from ovskit.core.train.views.geometry import View, warp_image, warp_masks

SIDE, PLACES = 64, 16


def box(top: int, left: int, bottom: int, right: int, size: int = SIDE) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def layer(*masks: np.ndarray, ancestors: np.ndarray | None = None) -> Layer:
    dense = np.stack(masks) if masks else np.zeros((0, SIDE, SIDE), np.uint8)
    relation = np.zeros((len(dense), len(dense)), np.bool_) if ancestors is None else ancestors
    return Layer(np.full((SIDE, SIDE, 3), 10, np.uint8), np.ascontiguousarray(dense[:, 2::4, 2::4]), relation)


def table_of(*masks: np.ndarray) -> RunTable:
    return run_table([encode(mask) for mask in masks])


PLAIN = View(SIDE, SIDE, SIDE, SIDE, 0, 0, SIDE)
PICTURE = np.random.default_rng(0).integers(100, 256, (SIDE, SIDE, 3), np.uint8)


def paste(
    onto: Layer,
    image: np.ndarray,
    table: RunTable,
    ancestors: np.ndarray,
    view: View,
    rng: np.random.Generator,
    *,
    min_points: int = 1,
    **options: Any,
) -> Layer:
    return copy_paste.paste(onto, image, table, ancestors, view, rng, PasteOptions(**{"largest": 1.0, **options}), min_points=min_points)


def test_pasted_pixels_are_the_others_and_parts_come_along() -> None:
    whole, part = box(0, 0, 24, 24), box(0, 0, 8, 8)
    above = np.array([[False, True], [False, False]])
    onto = layer(box(16, 0, 64, 64), box(40, 40, 64, 64), ancestors=above)
    found = paste(onto, PICTURE, table_of(part, whole), above.T, PLAIN, np.random.default_rng(0))
    shape = whole.astype(bool)
    np.testing.assert_array_equal(found.image[shape], PICTURE[shape])
    assert (found.image[~shape] == 10).all()
    assert found.masks.sum((1, 2)).tolist() == [12 * 16 - 2 * 6, 36, 4, 36]  # the first one cut, then part and whole
    assert not (found.masks[:2].any(0) & found.masks[2:].any(0)).any()
    wanted = np.zeros((4, 4), np.bool_)
    wanted[0, 1] = wanted[3, 2] = True
    np.testing.assert_array_equal(found.ancestors, wanted)
    assert (onto.image == 10).all()
    assert onto.masks.sum() == 12 * 16 + 36  # the input is not written to


def test_what_would_hide_half_of_a_mask_is_left_out() -> None:
    onto = layer(box(0, 0, 32, 32))
    half, less = box(0, 0, 32, 16), box(0, 0, 32, 12)
    for seed in range(5):
        assert paste(onto, PICTURE, table_of(half), np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(seed)) is onto
    assert len(paste(onto, PICTURE, table_of(less), np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(0)).masks) == 2
    assert len(paste(onto, PICTURE, table_of(half), np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(0), hidden=0.6).masks) == 2
    # Two that hide less than half each, but more together.
    both = table_of(less, box(0, 20, 32, 32))
    counts = {len(paste(onto, PICTURE, both, np.zeros((2, 2), np.bool_), PLAIN, np.random.default_rng(seed)).masks) for seed in range(20)}
    assert counts == {2}
    # Two that hide the same place hide it once.
    twice = table_of(less, box(0, 0, 60, 12))
    counts = {len(paste(onto, PICTURE, twice, np.zeros((2, 2), np.bool_), PLAIN, np.random.default_rng(seed)).masks) for seed in range(20)}
    assert counts == {2, 3}


def test_parts_are_spared_only_if_asked_for() -> None:
    above = np.array([[False, True], [False, False]])
    onto = layer(box(0, 0, 64, 64), box(0, 0, 16, 16), ancestors=above)
    other, none = table_of(box(0, 0, 16, 12)), np.zeros((1, 1), np.bool_)
    found = paste(onto, PICTURE, other, none, PLAIN, np.random.default_rng(0))
    assert found.masks.sum((1, 2)).tolist() == [244, 4, 12]
    np.testing.assert_array_equal(found.ancestors[:2, :2], above)
    assert paste(onto, PICTURE, other, none, PLAIN, np.random.default_rng(0), spared="all") is onto
    most = table_of(box(0, 0, 64, 40))
    assert paste(onto, PICTURE, most, none, PLAIN, np.random.default_rng(0)) is onto
    gone = paste(onto, PICTURE, table_of(box(0, 0, 16, 16)), none, PLAIN, np.random.default_rng(0))  # the part is hidden wholly
    assert gone.masks.sum((1, 2)).tolist() == [240, 16]


def test_what_fills_a_photograph_is_no_entity() -> None:
    scene, whole, part = box(0, 0, 64, 48), box(0, 0, 24, 24), box(0, 0, 8, 8)
    above = np.triu(np.ones((3, 3), np.bool_), 1)
    others = table_of(scene, whole, part)
    assert len(paste(layer(), PICTURE, others, above, PLAIN, np.random.default_rng(0)).masks) == 3
    found = paste(layer(), PICTURE, others, above, PLAIN, np.random.default_rng(0), largest=0.5)
    assert found.masks.sum((1, 2)).tolist() == [36, 4]
    np.testing.assert_array_equal(found.ancestors, above[1:, 1:])
    assert not (found.image[:, 24:] != 10).any()
    onto = layer()
    assert paste(onto, PICTURE, others, above, PLAIN, np.random.default_rng(0), largest=0.01) is onto


def test_the_number_pasted_is_random() -> None:
    onto = layer()
    others = table_of(*(box(8 * k, 0, 8 * k + 8, 64) for k in range(4)))
    counts = [len(paste(onto, PICTURE, others, np.zeros((4, 4), np.bool_), PLAIN, np.random.default_rng(s)).masks) for s in range(80)]
    assert set(counts) == {1, 2, 3, 4}
    assert 1.9 < np.mean(counts) < 3.1


def test_small_remains_are_dropped() -> None:
    onto = layer(box(0, 0, 8, 12))  # six points, of which two go
    other = table_of(box(0, 8, 8, 64))
    assert len(paste(onto, PICTURE, other, np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(0), min_points=4).masks) == 2
    found = paste(onto, PICTURE, other, np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(0), min_points=5)
    assert found.masks.sum((1, 2)).tolist() == [28]
    small = table_of(box(0, 40, 8, 48))  # four points: too few to be pasted
    assert paste(onto, PICTURE, small, np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(0), min_points=5) is onto


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 1.0]))
def test_any_paste_keeps_the_rules(seed: int, hidden: float) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> list[np.ndarray]:
        corners = rng.integers(0, 48, (count, 2))
        return [box(y, x, y + h, x + w) for (y, x), (h, w) in zip(corners, rng.integers(8, 40, (count, 2)), strict=True)]

    onto, others = layer(*boxes(int(rng.integers(0, 5)))), boxes(int(rng.integers(1, 6)))
    nested = np.array([[i != j and (a >= b).all() and a.sum() > b.sum() for j, b in enumerate(others)] for i, a in enumerate(others)])
    view = View(SIDE, SIDE, *rng.integers(20, 65, 2).tolist(), *rng.integers(-20, 1, 2).tolist(), SIDE, bool(rng.random() < 0.5))
    table = table_of(*others)
    found = paste(onto, PICTURE, table, nested, view, rng, hidden=hidden)
    if found is onto:
        return
    every = warp_masks(table, view, PLACES)
    pasted = [k for k in range(len(every)) if any(np.array_equal(every[k], mask) and every[k].any() for mask in found.masks)]
    over = np.zeros((PLACES, PLACES), bool)
    count = 0
    for mask in found.masks[::-1]:  # pasted ones come last
        if count < len(pasted) and any(np.array_equal(mask, every[k]) for k in pasted):
            over |= mask.astype(bool)
            count += 1
        else:
            break
    cut = onto.masks & ~over
    left = cut[cut.any((1, 2))]
    np.testing.assert_array_equal(found.masks[: len(left)], left)
    areas = onto.masks.sum((1, 2), dtype=int)
    assert ((areas - cut.sum((1, 2), dtype=int)) < hidden * areas).all()
    moved = warp_image(PICTURE, view)
    changed = (found.image != onto.image).any(-1)
    np.testing.assert_array_equal(found.image[changed], moved[changed])
    assert found.ancestors.shape == (len(found.masks),) * 2
    for whole in np.flatnonzero(found.ancestors.any(1)):  # here a part lies in its whole
        for part in np.flatnonzero(found.ancestors[whole]):
            assert (found.masks[part] <= found.masks[whole]).all()


def test_nothing_to_paste() -> None:
    onto = layer(box(0, 0, 8, 8))
    assert paste(onto, PICTURE, table_of(box(0, 0, 1, 1)), np.zeros((1, 1), np.bool_), PLAIN, np.random.default_rng(0)) is onto
    away = View(SIDE, SIDE, SIDE, SIDE, SIDE, 0, SIDE)
    assert paste(onto, PICTURE, table_of(box(0, 0, 64, 64)), np.zeros((1, 1), np.bool_), away, np.random.default_rng(0)) is onto
