"""Pixels that are right, counted by a loop and by ``ovs-eval``'s confusion matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovskit.core.eval.confusion import count_pairs
from ovskit.core.eval.semantic import SemanticOptions, SemanticScores
from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.formats.labels.named_maps import masks_of_map
from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace
from ovskit.core.records import Image, LabelMap, MaskSet
from ovskit.core.show.agreement import agreement, same_classes
from ovskit.core.show.scene import percent, right_line

IDS = st.sampled_from([-1, 0, 1, 2])
NAMES = {0: "background", 1: "cat", 2: "dog"}


def space(background: int | None) -> LabelSpace:
    return LabelSpace("s", 1, (*(LabelClass(k, name) for k, name in NAMES.items()), LabelClass(3, "cow", ("bull",))), ("{}",), background)


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda s: hnp.arrays(np.int32, (2, *s), elements=IDS)), st.booleans())
def test_as_a_loop_and_as_ovs_eval_count(pair: np.ndarray, with_background: bool) -> None:
    truth, predicted = pair
    image = Image(1, "a", truth.shape[1], truth.shape[0])
    # The prediction's ids are others, its names the same.
    masks = masks_of_map(LabelMap(image, np.where(predicted >= 0, predicted + 10, -1).astype(np.int32)))
    background = 0 if with_background else None
    same = same_classes({number + 10: name.upper() for number, name in NAMES.items()}, NAMES, space(background))
    assert same is not None
    found = agreement(masks, LabelMap(image, truth), same)
    counted = [(t, p) for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True) if t >= 0]
    if not counted:
        assert found is None
        return
    assert found is not None
    assert found.counted == len(counted)
    assert found.right == sum(t == (0 if p < 0 and with_background else p) for t, p in counted)
    scores = SemanticScores(SemanticOptions(NAMES, background))
    scores.add(0, count_pairs(truth, predicted))
    assert found.share == scores.values_by_image(1)[[row.name for row in scores.rows].index("pixel_accuracy"), 0]


def test_there_is_nothing_to_compare_without_a_common_name() -> None:
    assert same_classes({1: "cluster 1", 2: "cluster 2"}, NAMES, space(0)) is None
    assert same_classes({}, NAMES, space(0)) is None
    assert same_classes(NAMES, {}, None) is None
    bull = same_classes({5: "Bull"}, {**NAMES, 3: "cow"}, space(0))
    assert bull is not None
    assert (bull.of(5), bull.of(1), bull.background) == (3, None, 0)
    nameless = same_classes({}, {}, None)
    assert nameless is not None
    assert (nameless.of(7), nameless.background) == (7, None)


def test_masks_lie_over_each_other_as_in_a_score() -> None:
    image = Image(1, "a", 3, 1)
    low = masks_of_map(LabelMap(image, np.array([[1, 1, 1]], np.int32))).masks[0]
    high = masks_of_map(LabelMap(image, np.array([[-1, 2, 2]], np.int32))).masks[0]
    masks = MaskSet(image, (replace(high, id=2, score=0.1), replace(low, score=0.9)))
    assert painted_prediction(masks).labels.tolist() == [[1, 1, 1]]
    same = same_classes(NAMES, NAMES, None)
    assert same is not None
    found = agreement(masks, LabelMap(image, np.array([[1, 2, 1]], np.int32)), same)
    assert found is not None
    assert (found.right, found.counted, right_line(found)) == (2, 3, "67 % of pixels right")


def test_shares_are_written_as_on_the_page() -> None:
    said = [percent(share) for share in (0, 0.00001, 0.0004, 0.0099, 0.00996, 0.0345, 0.0994, 0.0996, 0.5, 1)]
    assert said == ["0 %", "< 0.01 %", "0.04 %", "0.99 %", "1.0 %", "3.5 %", "9.9 %", "10 %", "50 %", "100 %"]
