"""The forest against the paper's definition, computed by pycocotools, and the paper's own example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from ovskit.core.hier import coverage_forest
from ovskit.core.hier.coverage_forest import grow_forest, parents
from ovskit.core.masks import rle
from ovskit.core.masks.coverage import ancestors
from ovskit.core.masks.forest import levels
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Image, Mask, MaskSet, Rle
from ovskit.core.runtime.errors import InputError


def pool(seed: int, number: int, size: tuple[int, int] = (40, 60)) -> list[Rle]:
    """Masks that lie in each other now and then: rectangles and unions of rectangles, some bitten, some alike."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        dense = np.zeros(size, np.uint8)
        for _ in range(random.integers(1, 3)):
            y, x = random.integers(0, size[0]), random.integers(0, size[1])
            dense[y : y + random.integers(1, size[0]), x : x + random.integers(1, size[1])] = 1
        if random.random() < 0.5:
            dense &= random.random(size) > random.choice([0.02, 0.08, 0.2])
        found.append(rle.encode(dense))
        if random.random() < 0.1:
            found.append(found[-1])
    return found


def definition(rles: list[Rle], cover: float, inclusive: bool = False) -> np.ndarray:
    """The ancestor matrix from pycocotools: with ``iscrowd`` its IoU is |i ∩ j| / |i|."""
    masks = [{"size": [r.height, r.width], "counts": r.counts} for r in rles]
    inside = np.asarray(coco_mask.iou(masks, masks, [1] * len(masks)))
    reverse = inside.T
    return (inside >= cover if inclusive else inside > cover) & (reverse < cover)


def as_set(rles: list[Rle], size: tuple[int, int] = (40, 60)) -> MaskSet:
    masks = tuple(Mask(10 + k, 1, r, rle.area(r), rle.bbox(r), score=0.5, extra={"threshold": 0.1}) for k, r in enumerate(rles))
    return MaskSet(Image(1, "a.jpg", size[1], size[0]), masks)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]), st.booleans())
def test_ancestors_and_parents_are_the_definition(seed: int, number: int, cover: float, inclusive: bool) -> None:
    rles = pool(seed, number)
    if not rles:
        assert len(parents(run_table([]))) == 0
        return
    expected = definition(rles, cover, inclusive)
    np.testing.assert_array_equal(ancestors(run_table(rles), cover, inclusive=inclusive), expected)
    areas = [rle.area(r) for r in rles]
    for i, above in enumerate(parents(run_table(rles), cover, inclusive=inclusive).tolist()):
        candidates = np.flatnonzero(expected[i]).tolist()
        assert above == min(candidates, key=lambda j: (areas[j], j), default=-1)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    rles = pool(5, 50)
    whole = parents(run_table(rles))
    assert (whole >= 0).sum() > 10
    monkeypatch.setattr(coverage_forest, "_ROWS", rows)
    np.testing.assert_array_equal(parents(run_table(rles)), whole)


def test_the_example_of_figure_4() -> None:
    """SOHES, Fig. 4: mask 5 is an ancestor of 1, 2, 3, 4 and 6; 1 of 3 and 4; 2 of 6."""
    boxes = {1: (5, 5, 40, 40), 2: (50, 5, 90, 40), 3: (8, 8, 20, 20), 4: (25, 10, 38, 36), 5: (2, 2, 95, 60), 6: (60, 10, 80, 30)}
    dense = np.zeros((6, 64, 100), np.uint8)
    for number, (left, top, right, bottom) in boxes.items():
        dense[number - 1, top:bottom, left:right] = 1
    rles = [rle.encode(d) for d in dense]
    matrix = ancestors(run_table(rles))
    below = {j: {i + 1 for i in np.flatnonzero(matrix[:, j - 1]).tolist()} for j in boxes}
    assert below == {5: {1, 2, 3, 4, 6}, 1: {3, 4}, 2: {6}, 3: set(), 4: set(), 6: set()}
    assert (parents(run_table(rles)) + 1).tolist() == [5, 5, 1, 1, 0, 2]
    grown = grow_forest(as_set(rles, (64, 100)))
    assert [mask.extra["level"] for mask in grown.masks] == [1, 1, 2, 2, 0, 2]


def test_the_relation_is_not_transitive_and_the_forest_still_is_one() -> None:
    part = np.zeros((10, 1000), np.uint8)
    hand, person = part.copy(), part.copy()
    part[:, 0:100] = 1
    hand[:, 8:300] = 1  # holds 0.92 of the part
    person[:, 30:900] = 1  # holds 0.92 of the hand, and 0.7 of the part
    rles = [rle.encode(m) for m in (part, hand, person)]
    assert ancestors(run_table(rles)).tolist() == [[False, True, False], [False, False, True], [False, False, False]]
    assert parents(run_table(rles)).tolist() == [1, 2, -1]
    assert levels(parents(run_table(rles))).tolist() == [2, 1, 0]


def test_everything_else_of_a_mask_stays() -> None:
    before = as_set(pool(3, 30))
    after = grow_forest(before)
    assert [m.id for m in after.masks] == [m.id for m in before.masks]
    for old, new in zip(before.masks, after.masks, strict=True):
        assert (new.rle, new.area, new.bbox, new.score) == (old.rle, old.area, old.bbox, old.score)
        assert new.extra == {"threshold": 0.1, "level": new.extra["level"]}
    assert grow_forest(after) == after


def test_copies_and_empty_masks_have_no_parent() -> None:
    dense = np.zeros((8, 8), np.uint8)
    dense[2:6, 2:6] = 1
    rles = [rle.encode(dense), rle.encode(dense), rle.encode(np.zeros((8, 8), np.uint8))]
    assert parents(run_table(rles)).tolist() == [-1, -1, -1]


def test_masks_of_two_sizes_are_refused() -> None:
    good, other = rle.encode(np.ones((40, 60), np.uint8)), rle.encode(np.ones((40, 61), np.uint8))
    with pytest.raises(InputError, match=r"a\.jpg: mask 11 is 61×40, its image 60×40"):
        grow_forest(as_set([good, other]))


def nested(*widths: int) -> MaskSet:
    """Rows of ten pixels: one of each width, from the left."""
    return as_set([rle.encode((np.arange(40) < width)[None].astype(np.uint8).repeat(10, axis=0)) for width in widths], (10, 40))


def test_a_share_of_exactly_the_bound() -> None:
    """Nine of ten pixels: SOHES says > 0.9, HASSOD ≥ 0.9."""
    dense = np.zeros((2, 10, 40), np.uint8)
    dense[0, 0, :10] = 1
    dense[1, :, 1:] = 1
    rles = [rle.encode(one) for one in dense]
    assert parents(run_table(rles)).tolist() == [-1, -1]
    assert parents(run_table(rles), inclusive=True).tolist() == [1, -1]
    grown = grow_forest(as_set(rles, (10, 40)), inclusive=True)
    assert [m.parent_id for m in grown.masks] == [11, None]
    # What lies in each other by exactly the bound is neither's part.
    dense[1] = 0
    dense[1, 0, 1:11] = 1
    assert parents(run_table([rle.encode(one) for one in dense]), inclusive=True).tolist() == [-1, -1]


def test_levels_that_end() -> None:
    """HASSOD's whole, part, subpart, and whatever is below, a subpart too; the parents are the same."""
    masks = nested(40, 30, 20, 10, 5)
    deep, shallow = grow_forest(masks), grow_forest(masks, deepest=2)
    assert [m.extra["level"] for m in deep.masks] == [0, 1, 2, 3, 4]
    assert [m.extra["level"] for m in shallow.masks] == [0, 1, 2, 2, 2]
    assert [m.parent_id for m in shallow.masks] == [m.parent_id for m in deep.masks] == [None, 10, 11, 12, 13]
