"""COCO's rules one by one, on tables small enough to follow by hand. Parity at large is in test_parity."""

import numpy as np
import pytest

from ovskit.core.eval.matching import IOU_THRESHOLDS, THRESHOLDS, MatchedDetections, match
from ovskit.core.masks.pairs import pairs_of

ALL, SMALL, MEDIUM, LARGE = range(4)


def found(iou: list[list[float]], own: list[float], truth: list[float], crowd: list[int] | None = None) -> MatchedDetections:
    table = np.array(iou, np.float64).reshape(len(own), len(truth))
    return match(
        pairs_of(table, IOU_THRESHOLDS[0]), np.array(own, np.float64), np.array(truth, np.float64), np.array(crowd or [0] * len(truth)) != 0
    )


def bits(values: np.ndarray, area: int, threshold: float) -> list[int]:
    step = round((threshold - 0.5) / 0.05)
    return [int(v) >> (area * THRESHOLDS + step) & 1 for v in values]


def test_one_pair_counts_up_to_its_iou() -> None:
    result = found([[0.72]], [2000], [2000])
    assert [bits(result.true, ALL, t)[0] for t in (0.5, 0.7, 0.75, 0.95)] == [1, 1, 0, 0]
    assert [bits(result.false, ALL, t)[0] for t in (0.5, 0.7, 0.75, 0.95)] == [0, 0, 1, 1]
    assert result.counted.tolist() == [1, 0, 1, 0]


def test_an_iou_on_the_threshold_counts() -> None:
    for k, threshold in enumerate(np.linspace(0.5, 0.95, 10)):
        assert int(found([[threshold]], [10], [10]).true[0]) & ((1 << THRESHOLDS) - 1) == (1 << (k + 1)) - 1


def test_the_best_free_mask_is_taken_and_of_equals_the_last() -> None:
    # The first detection prefers the second mask; the second one then finds only the first, too far away.
    result = found([[0.6, 0.9], [0.3, 0.9]], [10, 10], [10, 10])
    assert bits(result.true, ALL, 0.5) == [1, 0]
    # Between equals the last one is taken, which leaves the first one free.
    result = found([[0.8, 0.8], [0.8, 0.1]], [10, 10], [10, 10])
    assert bits(result.true, ALL, 0.5) == [1, 1]
    result = found([[0.8, 0.8], [0.1, 0.8]], [10, 10], [10, 10])
    assert bits(result.true, ALL, 0.5) == [1, 0]


def test_a_crowd_takes_any_number_and_counts_for_nothing() -> None:
    result = found([[0.9], [0.9], [0.4]], [10, 10, 10], [10], [1])
    assert result.counted.tolist() == [0, 0, 0, 0]
    assert not result.true.any()
    assert bits(result.false, ALL, 0.5) == [0, 0, 1]


def test_a_real_mask_goes_before_a_better_crowd() -> None:
    result = found([[0.95, 0.55]], [10], [10, 10], [1, 0])
    assert bits(result.true, ALL, 0.5) == [1]
    assert bits(result.true, ALL, 0.6) == bits(result.false, ALL, 0.6) == [0]


def test_a_mask_outside_of_the_range_is_ignored_and_taken_once() -> None:
    # Two small detections on a medium mask: for "small" the first is ignored with it, the second is false.
    result = found([[0.9], [0.8]], [500, 500], [5000])
    assert result.counted.tolist() == [1, 0, 1, 0]
    assert bits(result.true, SMALL, 0.5) == [0, 0]
    assert bits(result.false, SMALL, 0.5) == [0, 1]
    assert bits(result.true, MEDIUM, 0.5) == [1, 0]
    assert bits(result.false, MEDIUM, 0.5) == [0, 0]  # the second is unmatched, and small itself


@pytest.mark.parametrize(
    ("area", "ranges"), [(1024, {ALL, SMALL, MEDIUM}), (1025, {ALL, MEDIUM}), (9216, {ALL, MEDIUM, LARGE}), (9217, {ALL, LARGE})]
)
def test_both_ends_belong_to_a_range(area: float, ranges: set[int]) -> None:
    result = found([[0.0]], [area], [area])
    assert set(np.flatnonzero(result.counted)) == ranges
    assert {a for a in range(4) if bits(result.false, a, 0.5)[0]} == ranges


def test_nothing_on_either_side() -> None:
    assert found([], [], [5]).counted.tolist() == [1, 1, 0, 0]
    assert bits(found([[]], [5], []).false, ALL, 0.95) == [1]
