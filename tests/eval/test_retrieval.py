"""Zero-shot accuracy and retrieval against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.eval.retrieval import centred, image_to_text_hits, mean_with_interval, text_to_image_hits, topk_hits


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(images=st.integers(1, 12), captions=st.integers(1, 30), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_against_sorting(images: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.integers(-2, 3, (images, 3)) + np.array([0.5, 0, 0])  # with many equal cosines
    t = rng.integers(-2, 3, (captions, 3)) + np.array([0.5, 0, 0])
    of = rng.integers(0, images, captions)
    cosines = unit(v) @ unit(t).T
    ks = (1, 2, 5)
    to_text, to_image = image_to_text_hits(v, t, of, ks), text_to_image_hits(v, t, of, ks)
    for i in range(images):
        own = np.flatnonzero(of == i)
        if not len(own):
            assert np.isnan(to_text[i]).all()
            assert np.isnan(to_image[i]).all()
            continue
        order = np.argsort(-cosines[i], kind="stable")
        assert to_text[i].tolist() == [float(bool(set(order[:k]) & set(own))) for k in ks]
        ranks = [int(np.flatnonzero(np.argsort(-cosines[:, j], kind="stable") == i)[0]) for j in own]
        np.testing.assert_allclose(to_image[i], [np.mean([rank < k for rank in ranks]) for k in ks])


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_classes_against_sorting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    v, t, truth = rng.normal(size=(300, 4)), rng.normal(size=(7, 4)), rng.integers(0, 7, 300)
    order = np.argsort(-(unit(v) @ unit(t).T), axis=1)
    expected = np.stack([(order[:, :k] == truth[:, None]).any(axis=1) for k in (1, 3)], axis=1)
    assert np.array_equal(topk_hits(v, t, truth, (1, 3)), expected)


def test_a_tower_that_always_says_the_same_is_at_chance() -> None:
    assert topk_hits(np.ones((10, 2)), np.ones((5, 2)), np.arange(10) % 5, (1,)).mean() == 0.2


def test_intervals() -> None:
    values = (np.arange(400) < 100).astype(float)
    mean, low, high = mean_with_interval(np.concatenate([values, [np.nan]]))
    assert mean == 0.25
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - spread, abs=0.01)
    assert high == pytest.approx(0.25 + spread, abs=0.01)
    assert mean_with_interval(np.ones(5)) == (1, 1, 1)
    with pytest.raises(ValueError, match="no value"):
        mean_with_interval(np.array([np.nan]))


def test_centred_rows_have_nothing_in_common() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(50, 6)) + 4).astype(np.float32)
    found = centred(rows)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (unit(rows) @ unit(rows).T).mean() > 0.8
    assert abs((found @ found.T).mean()) < 0.05
    np.testing.assert_allclose(centred(rows[:3], unit(rows.astype(np.float64)).mean(axis=0)), found[:3], atol=1e-5)
