"""Non-maximum suppression against dense masks, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from ovskit.core.masks import rle
from ovskit.core.masks.nms import suppress
from ovskit.core.masks.runs import run_table


def boxes(seed: int, number: int = 40) -> list[np.ndarray]:
    """Boxes that overlap a lot, some of them equal, some empty."""
    random = np.random.default_rng(seed)
    masks = []
    for _ in range(number):
        top, left = random.integers(0, 5, 2)
        mask = np.zeros((20, 20), bool)
        mask[top : top + random.integers(4, 15), left : left + random.integers(0, 15)] = True
        masks.append(mask)
    return masks


@pytest.mark.parametrize("most", [-0.5, 0.0, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("by_area", [True, False])
def test_it_is_greedy_over_all_pairs(most: float, by_area: bool) -> None:
    masks = boxes(7)
    if by_area:
        masks.sort(key=lambda mask: -int(mask.sum()))
    kept: list[int] = []
    for k, mask in enumerate(masks):
        shared = [((mask & masks[j]).sum(), (mask | masks[j]).sum()) for j in kept]
        if not any(both and both / either > most for both, either in shared):
            kept.append(k)
    assert suppress(run_table([rle.encode(mask) for mask in masks]), most).tolist() == kept


def test_what_is_dropped_drops_nothing() -> None:
    strips = np.zeros((4, 4, 40), bool)
    for k in range(4):
        strips[k, :, 3 * k : 3 * k + 12] = True  # neighbours overlap by 9 of 15
    assert suppress(run_table([rle.encode(strip) for strip in strips]), 0.5).tolist() == [0, 2]


def test_exactly_as_much_is_not_above() -> None:
    pair = np.zeros((2, 1, 10), bool)
    pair[0] = pair[1, :, :9] = True
    table = run_table([rle.encode(one) for one in pair])
    assert suppress(table, 0.9).tolist() == [0, 1]
    assert suppress(table, np.nextafter(0.9, 0)).tolist() == [0]


def test_no_masks() -> None:
    assert suppress(run_table([]), 0.5).tolist() == []
