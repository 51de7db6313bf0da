"""Refining one image's masks: what is dropped and counted, cleaned, handed to other parents."""

from collections.abc import Sequence

import numpy as np
import pytest

from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet, Rle, RunTable
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.pipeline import refine_masks
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.errors import InputError

SIZE = (40, 50)
PIXELS = np.zeros((*SIZE, 3), np.uint8)
PLAIN = RefineOptions(min_component=0)


def box(top: int, left: int, bottom: int, right: int) -> Rle:
    dense = np.zeros(SIZE, np.uint8)
    dense[top:bottom, left:right] = 1
    return rle.encode(dense)


def mask(number: int, outline: Rle, parent: int | None = None, **extra: object) -> Mask:
    return Mask(number, 1, outline, rle.area(outline), rle.bbox(outline), score=number / 10, parent_id=parent, extra=extra)


def as_set(*masks: Mask) -> MaskSet:
    return MaskSet(Image(1, "a.jpg", SIZE[1], SIZE[0]), masks)


def becomes(outlines: dict[int, Rle]) -> Refiner:
    """A refiner that gives the masks of these ids other outlines and leaves the rest."""

    def refine(pixels: np.ndarray, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        assert pixels is PIXELS
        assert table.areas.tolist() == [m.area for m in masks]
        assert all(m.area == rle.area(m.rle) > 0 and m.bbox == rle.bbox(m.rle) for m in masks)
        return [outlines.get(m.id, m.rle) for m in masks]

    return Refiner("test", refine)


def test_outline_area_and_box_change_and_nothing_else() -> None:
    before = as_set(mask(7, box(0, 0, 10, 10), threshold=0.3), mask(3, box(5, 5, 30, 30)))
    after, dropped = refine_masks(before, PIXELS, [becomes({7: box(0, 0, 10, 12)})], PLAIN)
    assert dropped.total == 0
    assert dropped.masks == 2
    assert [m.id for m in after.masks] == [7, 3]
    first = after.masks[0]
    assert (first.rle, first.area, first.bbox) == (box(0, 0, 10, 12), 120, (0, 0, 12, 10))
    assert (first.score, first.extra) == (0.7, {"threshold": 0.3})
    assert after.masks[1] == before.masks[1]


def test_what_is_dropped_and_why() -> None:
    empty = rle.encode(np.zeros(SIZE, np.uint8))
    before = as_set(*(mask(k, box(0, 0, 10, 10)) for k in range(1, 5)), mask(5, box(0, 0, 40, 44)))
    outlines = {
        1: box(0, 0, 10, 20),  # IoU exactly 0.5: stays
        2: box(0, 0, 10, 21),  # just below
        3: empty,
        5: box(0, 0, 40, 46),  # 0.92 of the image
    }
    after, dropped = refine_masks(before, PIXELS, [becomes(outlines)], PLAIN)
    assert [m.id for m in after.masks] == [1, 4]
    assert (dropped.masks, dropped.moved, dropped.vanished, dropped.large, dropped.total) == (5, 1, 1, 1, 3)
    everything, none = refine_masks(before, PIXELS, [becomes(outlines)], RefineOptions(min_iou=0, max_area=1, min_component=0))
    assert [m.id for m in everything.masks] == [1, 2, 4, 5]
    assert (none.moved, none.large, none.vanished) == (0, 0, 1)


def test_methods_in_turn_are_judged_by_the_first_outline() -> None:
    before = as_set(mask(1, box(0, 0, 10, 10)))
    first, second = becomes({1: box(0, 0, 10, 14)}), becomes({1: box(0, 0, 10, 19)})
    after, _ = refine_masks(before, PIXELS, [first, second], PLAIN)
    assert after.masks[0].rle == box(0, 0, 10, 19)
    third = becomes({1: box(0, 0, 10, 25)})
    after, dropped = refine_masks(before, PIXELS, [first, second, third], PLAIN)
    assert after.masks == ()
    assert dropped.moved == 1


def test_what_has_vanished_is_not_given_to_the_next_method() -> None:
    empty = rle.encode(np.zeros(SIZE, np.uint8))
    before = as_set(mask(1, box(0, 0, 10, 10)), mask(2, box(0, 0, 20, 20)))
    after, dropped = refine_masks(before, PIXELS, [becomes({1: empty}), becomes({1: box(0, 0, 10, 10)})], PLAIN)
    assert [m.id for m in after.masks] == [2]
    assert dropped.vanished == 1


def test_children_of_a_dropped_mask_move_up() -> None:
    empty = rle.encode(np.zeros(SIZE, np.uint8))
    chain = [mask(1, box(0, 0, 40, 40), level=0), mask(2, box(0, 0, 30, 30), 1, level=1), mask(3, box(0, 0, 20, 20), 2, level=2)]
    leaves = [mask(4, box(0, 0, 9, 9), 3, level=3), mask(5, box(10, 10, 19, 19), 3, level=3)]
    after, _ = refine_masks(as_set(*chain, *leaves), PIXELS, [becomes({2: empty, 3: empty})], PLAIN)
    assert {m.id: (m.parent_id, m.extra["level"]) for m in after.masks} == {1: (None, 0), 4: (1, 1), 5: (1, 1)}
    after, _ = refine_masks(as_set(*chain, *leaves), PIXELS, [becomes({1: empty})], PLAIN)
    assert {m.id: (m.parent_id, m.extra["level"]) for m in after.masks} == {2: (None, 0), 3: (2, 1), 4: (3, 2), 5: (3, 2)}


def test_specks_and_holes_below_a_share_go() -> None:
    dense = np.zeros(SIZE, np.uint8)
    dense[5:30, 5:30] = 1
    dense[10:12, 10:12] = 0  # a hole of 4 pixels
    dense[15:20, 15:20] = 0  # one of 25
    dense[35, 35:38] = 1  # a speck of 3
    dense[35, 40:48] = 1  # one of 8
    before = as_set(mask(1, rle.encode(dense)))
    expected = dense.copy()
    expected[10:12, 10:12] = 1
    expected[35, 35:38] = 0
    after, _ = refine_masks(before, PIXELS, [], RefineOptions(min_component=5 / 2000))
    np.testing.assert_array_equal(rle.decode(after.masks[0].rle), expected)
    expected[10:12, 10:12] = 0
    after, _ = refine_masks(before, PIXELS, [], RefineOptions(min_component=5 / 2000, fill_holes=False))
    np.testing.assert_array_equal(rle.decode(after.masks[0].rle), expected)
    after, _ = refine_masks(before, PIXELS, [], PLAIN)
    assert after == before


def test_a_mask_smaller_than_a_speck_stays() -> None:
    before = as_set(mask(1, box(3, 3, 5, 5)))
    after, dropped = refine_masks(before, PIXELS, [], RefineOptions(min_component=0.1))
    assert after == before
    assert dropped.total == 0


def test_a_soft_margin_goes_when_it_has_done_its_work() -> None:
    outline = box(0, 0, 10, 10)
    before = as_set(mask(1, outline, soft={"grid": [1, 1]}, source="final"))
    seen = []

    def refine(pixels: np.ndarray, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        seen.append(masks[0].extra["soft"])
        return [m.rle for m in masks]

    after, _ = refine_masks(before, PIXELS, [Refiner("one", refine), Refiner("two", refine)], PLAIN)
    assert after.masks[0].extra == {"source": "final"}
    assert seen == [{"grid": [1, 1]}] * 2
    assert refine_masks(before, PIXELS, [], PLAIN)[0] == before


def test_a_mask_of_another_size_is_refused() -> None:
    other = rle.encode(np.ones((40, 51), np.uint8))
    with pytest.raises(InputError, match=r"a\.jpg: mask 2 is 51×40, its image 50×40"):
        refine_masks(as_set(mask(1, box(0, 0, 5, 5)), mask(2, other)), PIXELS, [], PLAIN)


def test_no_masks() -> None:
    after, dropped = refine_masks(as_set(), PIXELS, [becomes({})], RefineOptions())
    assert after == as_set()
    assert dropped.masks == 0
