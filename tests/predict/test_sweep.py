"""The sweep of thresholds, against one confusion matrix a threshold, and against ovs-eval's own scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.predict.dense.sweep import ThresholdSweep
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import semantic as reference

CLASSES = [0, 2, 3, 7, 11]
GRID = [0.7, 0.1, 0.25, 0.5, 0.5, 0.95, 0.0, 1.5]


def scene(seed: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 9, 2))
    best = random.choice(CLASSES[: random.integers(1, 6)], shape)
    truth = random.choice([-1, *CLASSES[: random.integers(1, 6)]], shape).astype(np.int32)
    # Many probabilities are thresholds themselves, to the last bit.
    chances = np.where(random.random(shape) < 0.5, random.choice(GRID[:7], shape), random.random(shape)).astype(dtype)
    return best, chances, truth


def brute(
    scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]], threshold: float, background: int, ceilings: list[float]
) -> dict[str, float]:
    counts: dict[tuple[int, int], int] = {}
    for (best, chances, truth), ceiling in zip(scenes, ceilings, strict=True):
        predicted = np.where(chances < chances.dtype.type(min(threshold, ceiling)), background, best)
        for pair, n in reference.confusion(truth, predicted).items():
            counts[pair] = counts.get(pair, 0) + n
    return reference.scores(counts, CLASSES)


@given(seed=st.integers(0, 10**6), background=st.sampled_from(CLASSES), double=st.booleans(), capped=st.booleans())
def test_it_is_what_each_threshold_gives_by_itself(seed: int, background: int, double: bool, capped: bool) -> None:
    scenes = [scene(seed + k, np.float64 if double else np.float32) for k in range(3)]
    ceilings = [float(chances.max()) if capped else np.inf for _, chances, _ in scenes]
    sweep = ThresholdSweep(CLASSES, background, GRID)
    for one, ceiling in zip(scenes, ceilings, strict=True):
        sweep.add(*one, ceiling=ceiling)
    found = sweep.scores()
    assert found.thresholds.tolist() == sorted(set(GRID))
    if all((truth < 0).all() for _, _, truth in scenes):
        assert found.best() is None
        return
    expected = [brute(scenes, threshold, background, ceilings) for threshold in found.thresholds]
    np.testing.assert_allclose(found.miou, [one["mIoU"] for one in expected], atol=1e-12)
    np.testing.assert_allclose(found.miou_strict, [one["mIoU_strict"] for one in expected], atol=1e-12)
    assert found.miou[found.thresholds == found.best()] == max(found.miou)
    assert found.miou_strict[found.thresholds == found.best(strict=True)] == max(found.miou_strict)


def test_a_threshold_below_all_keeps_every_pixel_and_one_above_none() -> None:
    best, truth = np.array([[2, 3], [0, 7]]), np.array([[2, 2], [0, -1]], np.int32)
    sweep = ThresholdSweep(CLASSES, 0, [0, 2])
    sweep.add(best, np.array([[0.2, 0.3], [0.4, 0.9]]), truth)
    found = sweep.scores()
    np.testing.assert_allclose(found.iou[:3], [[1, 1 / 3], [0.5, 0], [0, np.nan]])
    np.testing.assert_allclose(found.miou, [0.75, 1 / 6])
    np.testing.assert_allclose(found.miou_strict, [0.5, 1 / 6])
    assert found.best() == 0


def test_what_cannot_be_swept_is_said() -> None:
    for classes, grid in (([1, 2], [0.5]), ([0, 2, 2], [0.5]), ([0, 1], []), ([0, 1], [float("nan")]), ([-1, 0], [0.5])):
        with pytest.raises(UsageError, match="a sweep needs"):
            ThresholdSweep(classes, 0, grid)
    sweep = ThresholdSweep(CLASSES, 0, [0.5])
    pixel = np.zeros((1, 1), np.int32)
    for best, chances, truth, message in (
        (pixel + 4, 0.5, pixel, "id 4 is not"), (pixel, 0.5, pixel + 99, "id 99 is not"), (pixel - 1, 0.5, pixel, "id -1 is not"),
        (pixel, np.nan, pixel, "not a number"), (np.zeros((1, 2), np.int32), 0.5, pixel, r"\(1, 2\)"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            sweep.add(best, np.full((1, 1), chances), truth)
    assert sweep.scores().best() is None
