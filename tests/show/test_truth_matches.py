"""What is found of a ground truth, against pycocotools' IoU and the definition of the pairing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.show.truth_matches import by_annotator, find_truth, judge, matched_masks
from ovskit.core.show.views import larger_first

from .conftest import build_masks

SHAPE = (6, 7)


def coded(masks: MaskSet) -> list[dict[str, object]]:
    return [{"size": [m.rle.height, m.rle.width], "counts": m.rle.counts} for m in larger_first(masks)]


def piles(most: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.bool_, st.tuples(st.integers(0, most), st.just(SHAPE[0]), st.just(SHAPE[1])))


@settings(deadline=None, max_examples=80)
@given(piles(6), piles(5), st.sampled_from([0.2, 0.5, 0.75]), st.data())
def test_pairs_are_taken_best_first_and_crowds_take_no_part(there: np.ndarray, truth: np.ndarray, at: float, data: st.DataObject) -> None:
    crowds = data.draw(st.lists(st.integers(0, 1), min_size=len(truth), max_size=len(truth)))
    predictions, targets = build_masks(list(there), size=SHAPE), build_masks(list(truth), size=SHAPE, iscrowd=crowds)
    found = find_truth(predictions, targets, at)
    overlap = np.array(coco_mask.iou(coded(targets), coded(predictions), [0] * len(there))).reshape(len(truth), len(there))
    counted = np.array([not m.iscrowd for m in larger_first(targets)], bool)
    assert np.array_equal(found.counted, counted)
    assert found.total == counted.sum()
    pairs = [(g, int(k)) for g, k in enumerate(found.partner) if k >= 0]
    assert found.hits == len(pairs)
    assert len({k for _, k in pairs}) == len(pairs)
    for g in range(len(truth)):
        if found.nearest[g] < 0:
            assert not len(there) or overlap[g].max() == 0
        else:
            assert found.iou[g] == pytest.approx(overlap[g, found.nearest[g]])
        if found.partner[g] >= 0:
            assert counted[g]
            assert found.partner[g] == found.nearest[g]
            assert found.iou[g] >= at
        elif counted[g] and len(there):
            assert found.iou[g] == pytest.approx(overlap[g].max())
            # Whatever would do for a missed mask belongs to one that it suits as well or better.
            for k in np.flatnonzero(overlap[g] >= at):
                [owner] = [h for h, taken in pairs if taken == k]
                assert overlap[owner, k] >= overlap[g, k]
    assert [m.id for m in matched_masks(predictions, found).masks] == [
        larger_first(predictions)[k].id for _, k in sorted(pairs, key=lambda p: p[1])
    ]


def test_annotators_come_in_order_numbers_first() -> None:
    dense = [np.ones(SHAPE, bool)] * 5
    marks = [{"annotator": "b"}, {"annotator": 11}, {"annotator": 2}, {"annotator": "b"}, {}]
    groups = by_annotator(build_masks(dense, size=SHAPE, extras=marks))
    assert [(name, [m.id for m in masks.masks]) for name, masks in groups] == [(None, [5]), ("2", [3]), ("11", [2]), ("b", [1, 4])]
    [(name, masks)] = by_annotator(build_masks(dense[:2], size=SHAPE, extras=[{"annotator": 3}] * 2))
    assert name is None
    assert len(masks.masks) == 2


def test_every_file_is_judged_by_every_annotator() -> None:
    left, right = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    left[:, :3], right[:, 3:] = True, True
    truth = build_masks([left, right, right], size=SHAPE, extras=[{"annotator": 0}, {"annotator": 0}, {"annotator": 1}])
    both, one = build_masks([left, right], size=SHAPE), build_masks([left], size=SHAPE)
    first, second = judge([both, one, None], truth, 0.5)
    assert [(f.hits, f.total) for f in first.found] == [(2, 2), (1, 2), (0, 2)]
    assert [(f.hits, f.total) for f in second.found] == [(1, 1), (0, 1), (0, 1)]


def test_sizes_must_agree() -> None:
    with pytest.raises(InputError):
        find_truth(build_masks([np.ones((3, 4), bool)], size=(3, 4)), build_masks([np.ones((4, 3), bool)], size=(4, 3)))
