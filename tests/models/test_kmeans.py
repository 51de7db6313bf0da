"""k-means against a slow one and scipy's, and that nothing but the vectors and the seed has a say."""

from __future__ import annotations

import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster.vq import kmeans2

from ovskit.core.models.kmeans import Centroids, KMeansOptions, assign, fit, fit_each, scores
from ovskit.core.models.kmeans.dataset import lloyd
from ovskit.core.models.kmeans.nearest import nearest, prepared
from ovskit.core.models.kmeans.per_image import _lloyd, _on_grid
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import kmeans as slow

METRICS: Any = ("cosine", "euclidean")


def drawn(n: int = 300, c: int = 12, blobs: int = 6, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """Vectors around ``blobs`` centres, (n, c) float32, in no order."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(blobs, c))[random.integers(0, blobs, n)] + spread * random.normal(size=(n, c))).astype(np.float32)


def true_blobs(n: int, k: int, c: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Blobs far apart and which of them each vector is of."""
    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(n) % k)
    return (10 * np.eye(k, c)[label] + 0.1 * random.normal(size=(n, c))).astype(np.float32), label


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def same(a: Centroids, b: Centroids) -> bool:
    return np.array_equal(a.rows, b.rows) and np.array_equal(a.counts, b.counts) and a.objective == b.objective


small = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(-3, 3).map(float))
)


class TestLloyd:
    @pytest.mark.parametrize("metric", METRICS)
    def test_is_the_slow_one(self, metric: Any) -> None:
        points = drawn()
        start = prepared(points[:5], metric == "cosine")
        for steps in (1, 4):
            options = KMeansOptions(5, metric=metric, iterations=steps)
            found = lloyd(prepared(points, metric == "cosine"), start, options)
            rows, labels, objectives = slow.lloyd(points, start, cosine=metric == "cosine", steps=steps)
            np.testing.assert_allclose(found.rows, rows, atol=1e-5)
            assert found.counts.tolist() == np.bincount(labels, minlength=5).tolist()
            assert found.objective == pytest.approx(objectives[-1], rel=1e-5)
            assert assign(points, found)[0].tolist() == labels.tolist()

    def test_is_scipys(self) -> None:
        points = drawn(500, 8, seed=3)
        found = lloyd(points, points[:6], KMeansOptions(6, metric="euclidean", iterations=10))
        rows, _ = kmeans2(points.astype(float), points[:6].astype(float), iter=10, minit="matrix")
        np.testing.assert_allclose(found.rows, rows, atol=1e-5)

    @pytest.mark.parametrize("metric", METRICS)
    @settings(max_examples=40, deadline=None)
    @given(points=small, k=st.integers(1, 5))
    def test_objective_never_rises(self, metric: Any, points: np.ndarray, k: int) -> None:
        rows = prepared(points, metric == "cosine")
        start = rows[np.arange(k) % len(rows)]
        if metric == "cosine" and not start.any(axis=1).all():
            return  # starts are never zero where something else is there
        worst = np.inf
        for steps in range(1, 6):
            found = lloyd(rows, start, KMeansOptions(k, metric=metric, iterations=steps))
            assert found.objective <= worst * (1 + 1e-6) + 1e-9
            assert found.counts.sum() == len(points)
            worst = found.objective

    @pytest.mark.parametrize("metric", METRICS)
    def test_order_of_the_points_does_not_matter(self, metric: Any) -> None:
        points = drawn()
        order = np.random.default_rng(1).permutation(len(points))
        start = prepared(points[:4], metric == "cosine")
        options = KMeansOptions(4, metric=metric)
        one, other = (lloyd(prepared(p, metric == "cosine"), start, options) for p in (points, points[order]))
        assert assign(points, one)[0][order].tolist() == assign(points[order], other)[0].tolist()

    def test_an_empty_cluster_starts_again_at_the_farthest_point(self) -> None:
        points = np.array([[0], [1], [2], [50]], np.float32)
        start = np.array([[1], [1000], [2000]], np.float32)
        found = lloyd(points, start, KMeansOptions(3, metric="euclidean"))
        assert sorted(found.rows[:, 0].tolist()) in ([0, 1.5, 50], [0.5, 2, 50])
        assert found.counts.min() == 1


class TestFit:
    @pytest.mark.parametrize("metric", METRICS)
    @settings(max_examples=60, deadline=None)
    @given(points=small, k=st.integers(1, 5), seed=st.integers(0, 3))
    def test_small_ones(self, metric: Any, points: np.ndarray, k: int, seed: int) -> None:
        cosine = metric == "cosine"
        distinct = {tuple(row) for row in np.round(prepared(points, cosine), 5) if row.any() or not cosine}
        options = KMeansOptions(k, metric=metric, seed=seed)
        if len(distinct) < k and not (cosine and k == 1):
            with pytest.raises(InputError, match=f"k-means: {len(distinct)} distinct"):
                fit(points, options)
            return
        found = fit(points, options)
        labels, margin = assign(points, found)
        near = scores(points, found)
        assert np.array_equal(labels, near.argmax(1)) or (near.max(1) - near[np.arange(len(points)), labels]).max() < 1e-6
        assert found.counts.tolist() == np.bincount(labels, minlength=k).tolist()
        assert found.counts.min() > 0
        assert (margin >= 0).all() or k == 1
        away = ((prepared(points, cosine) - found.rows[labels]).astype(float) ** 2).sum(1)
        assert found.objective == pytest.approx(away.mean(), abs=1e-5)

    @pytest.mark.parametrize("metric", METRICS)
    def test_finds_what_is_far_apart(self, metric: Any) -> None:
        for seed in range(3):
            points, label = true_blobs(400, 5, 7, seed)
            found = fit(points, KMeansOptions(5, metric=metric, restarts=8, seed=seed))
            assert same_partition(assign(points, found)[0], label)

    def test_one_cluster_and_as_many_as_points(self) -> None:
        points = drawn(20, 5)
        one = fit(points, KMeansOptions(1, metric="euclidean"))
        np.testing.assert_allclose(one.rows[0], points.mean(0), rtol=1e-5)
        assert one.objective == pytest.approx(points.astype(float).var(0).sum(), rel=1e-5)
        each = fit(points, KMeansOptions(20, metric="euclidean"))
        assert each.objective == 0
        assert sorted(map(tuple, each.rows.tolist())) == sorted(map(tuple, points.tolist()))

    def test_duplicates_are_one_point(self) -> None:
        points = np.repeat(np.eye(3, dtype=np.float32), [5, 1, 90], axis=0)
        assert sorted(fit(points, KMeansOptions(3)).counts.tolist()) == [1, 5, 90]
        with pytest.raises(InputError, match="3 distinct directions among 96, want at least k = 4; choose a smaller k"):
            fit(np.concatenate([points[:48], 3 * points[48:]]), KMeansOptions(4))

    def test_zeros_have_no_direction(self) -> None:
        points = np.concatenate([np.zeros((4, 3)), np.eye(3)[[0, 0, 1]]]).astype(np.float32)
        found = fit(points, KMeansOptions(2))
        assert sorted(map(tuple, found.rows.tolist())) == [(0, 1, 0), (1, 0, 0)]
        labels, margin = assign(points, found)
        assert labels[:4].tolist() == [0] * 4
        assert margin[:4].tolist() == [0] * 4
        nothing = fit(points[:4], KMeansOptions(1))
        assert not nothing.rows.any()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_refuses_what_is_no_number(self, bad: float, dtype: Any) -> None:
        points = drawn().astype(dtype)
        found = fit(points, KMeansOptions(2))
        points[17, 3] = bad
        for call in (lambda: fit(points, KMeansOptions(2)), lambda: assign(points, found), lambda: scores(points, found)):
            with pytest.raises(InputError, match="infinities or NaN"):
                call()
        with pytest.raises(InputError, match="infinities or NaN"):
            fit_each(torch.from_numpy(points)[None], KMeansOptions(2), [0])

    def test_refuses_other_shapes(self) -> None:
        found = fit(drawn(), KMeansOptions(2))
        with pytest.raises(InputError, match="12 channels"):
            assign(drawn(c=11), found)
        for empty in (np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32), np.zeros(3, np.float32)):
            with pytest.raises(InputError, match="no vectors"):
                fit(empty, KMeansOptions(1))

    def test_float16_is_what_it_holds(self) -> None:
        points = drawn().astype(np.float16)
        assert same(fit(points, KMeansOptions(4)), fit(points.astype(np.float32), KMeansOptions(4)))

    def test_huge_and_tiny_numbers(self) -> None:
        points, label = true_blobs(60, 3, 4)
        for scale in (1e-30, 1e30):
            for metric in METRICS:
                found = fit(points * np.float32(scale), KMeansOptions(3, metric=metric, restarts=4))
                assert same_partition(assign(points * np.float32(scale), found)[0], label)

    def test_seeds_and_restarts(self) -> None:
        points = drawn(400, 6, 30, spread=0.1)
        options = KMeansOptions(12, iterations=3)
        ones = [fit(points, replace(options, seed=seed)) for seed in range(4)]
        assert same(ones[0], fit(points, options))
        assert len({one.objective for one in ones}) == 4
        worst = max(range(4), key=lambda seed: ones[seed].objective)
        best = [fit(points, replace(options, seed=worst, restarts=r)).objective for r in range(1, 7)]
        assert best == sorted(best, reverse=True)
        assert best[-1] < best[0]

    def test_a_sample(self) -> None:
        points = drawn(1000)
        options = KMeansOptions(4, max_points=100)
        assert fit(points, options).counts.sum() == 100
        assert same(fit(points, options), fit(points, options))
        assert not same(fit(points, options), fit(points, replace(options, seed=1)))
        assert same(fit(points, replace(options, max_points=0)), fit(points, replace(options, max_points=1000)))

    def test_input_is_left_alone(self) -> None:
        points = drawn()
        points.setflags(write=False)
        found = fit(points, KMeansOptions(3))
        found.rows.setflags(write=False)
        assign(points, found)
        scores(points, found)


class TestAssign:
    def test_margins(self) -> None:
        rows = np.array([[1, 0], [0, 1]], np.float32)
        cosine = Centroids(rows, "cosine", 0.0, np.array([1, 1]))
        points = np.array([[3, 4], [2, 0], [1, 1], [0, 0]], np.float32)
        labels, margin = assign(points, cosine)
        assert labels.tolist() == [1, 0, 0, 0]
        np.testing.assert_allclose(margin, [0.2, 1, 0, 0], atol=1e-7)
        np.testing.assert_allclose(scores(points, cosine)[0], [0.6, 0.8], atol=1e-7)
        labels, margin = assign(points, replace(cosine, metric="euclidean"))
        assert labels.tolist() == [1, 0, 0, 0]
        np.testing.assert_allclose(margin[:2], [20**0.5 - 18**0.5, 5**0.5 - 1], rtol=1e-6)
        np.testing.assert_allclose(scores(points, replace(cosine, metric="euclidean"))[0], [-20, -18])

    def test_a_single_centroid(self) -> None:
        one = Centroids(np.array([[1, 0]], np.float32), "cosine", 0.0, np.array([1]))
        points = np.array([[3, 4]], np.float32)
        assert assign(points, one)[1] == pytest.approx([0.6])
        assert assign(points, replace(one, metric="euclidean"))[1] == pytest.approx([-(20**0.5)])

    @pytest.mark.parametrize("metric", METRICS)
    def test_equals_go_to_the_lower_label(self, metric: Any) -> None:
        rows = np.repeat(prepared(drawn(5, 33, seed=8), True), 4, axis=0)[np.random.default_rng(0).permutation(20)]
        points = np.concatenate([rows, drawn(2000, 33)])
        labels, margin = assign(points, Centroids(rows, metric, 0.0, np.ones(20, np.int64)))
        first = [int(np.flatnonzero((rows == row).all(1))[0]) for row in rows]
        assert labels[:20].tolist() == first
        assert set(labels.tolist()) <= set(first)
        assert not margin.any()

    @pytest.mark.parametrize("metric", METRICS)
    def test_a_vector_stands_for_itself(self, metric: Any) -> None:
        """In any company: faiss has one way for fewer than 20 vectors, another for more, in blocks of 4,096."""
        points = drawn(5000, 47, 20)
        found = fit(points, KMeansOptions(9, metric=metric, iterations=2))
        labels, margin = assign(points, found)
        for part in (slice(0, 1), slice(7, 25), slice(4000, 5000)):
            alone = assign(points[part], found)
            assert np.array_equal(alone[0], labels[part])
            assert np.array_equal(alone[1], margin[part])
        whole = scores(points, found)
        assert np.array_equal(scores(points[40:43], found), whole[40:43])
        top = np.sort(whole if metric == "cosine" else -np.sqrt(-whole), axis=1)
        np.testing.assert_allclose(margin, top[:, -1] - top[:, -2], atol=1e-5)

    def test_faiss_does_not_decide_what_it_cannot(self) -> None:
        """Far from the origin float32 cannot tell |x|² - 2 x·y + |y|² apart."""
        points = drawn(200, 6, spread=1) + np.float32(3000)
        rows = points[:7].copy()
        labels, _ = nearest(points, rows, False, None, margins=False)
        assert labels.tolist() == slow.nearest(points.astype(float), rows.astype(float))[0].tolist()

    def test_memory_is_bounded(self) -> None:
        points = np.zeros((1_500_000, 8), np.float32)
        points[:, 0] = 1
        found = Centroids(np.eye(8, dtype=np.float32), "cosine", 0.0, np.ones(8, np.int64))
        tracemalloc.start()
        try:
            assign(points, found)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * points.shape[0] + (200 << 20)  # labels and margins, and a chunk


def test_threads_have_no_say() -> None:
    points = drawn(6000, 40, 30)

    def run(threads: int, metric: Any) -> list[bytes]:
        faiss.omp_set_num_threads(threads)
        torch.set_num_threads(threads)
        options = KMeansOptions(11, metric=metric, iterations=6)
        found = fit(points, options)
        each = fit_each(torch.from_numpy(points).view(6, 1000, 40), options, range(6))
        return [array.tobytes() for array in (found.rows, found.counts, *assign(points, found), *(part.numpy() for part in each))]

    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    try:
        for metric in METRICS:
            assert run(1, metric) == run(2, metric) == run(3, metric)
    finally:
        faiss.omp_set_num_threads(before[0])
        torch.set_num_threads(before[1])


class TestFitEach:
    @staticmethod
    def maps(b: int = 6, n: int = 90, c: int = 24, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.stack([torch.from_numpy(drawn(n, c, 5, seed)) for seed in range(b)]).to(dtype)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_company_has_no_say(self, metric: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ovskit.core.models.kmeans.per_image._BYTES", {"cpu": 1 << 30})  # all in one product
        maps, seeds = self.maps(9, dtype=dtype), [3, 1, 4, 1, 5, 9, 2, 6, 5]
        options = KMeansOptions(6, metric=metric, iterations=7, restarts=2)
        labels, centroids = fit_each(maps, options, seeds)
        assert labels.shape == (9, 90)
        assert centroids.shape == (9, 6, 24)
        assert labels.dtype == torch.int64
        assert centroids.dtype == torch.float32
        for part in (slice(0, 1), slice(4, 5), slice(2, 9), slice(8, 1, -3)):
            chosen = list(range(9))[part]
            alone = fit_each(maps[chosen], options, [seeds[i] for i in chosen])
            assert torch.equal(alone[0], labels[chosen])
            assert torch.equal(alone[1], centroids[chosen])

    @pytest.mark.parametrize("cosine", [True, False])
    def test_sums_are_exact(self, cosine: bool) -> None:
        """So their order, which is the batch's, the threads' and the device's, cannot show."""
        rows = _on_grid(self.maps(3, 500, 1000), cosine).rows
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
        shuffled = rows[:, :, order]
        assert torch.equal(rows @ rows.mT, shuffled @ shuffled.mT)
        assert torch.equal(rows.square().sum(2), shuffled.square().sum(2))
        assert torch.equal(rows.sum(1), rows.flip(1).cumsum(1)[:, -1])

    def test_image_at_rest_waits_for_the_others(self) -> None:
        still = torch.from_numpy(true_blobs(90, 3, 24)[0])
        maps = torch.stack([still, self.maps(1)[0]])
        options = KMeansOptions(3, iterations=30)
        alone, together = fit_each(maps[:1], options, [0]), fit_each(maps, options, [0, 0])
        assert torch.equal(alone[0][0], together[0][0])
        assert torch.equal(alone[1][0], together[1][0])

    @pytest.mark.parametrize("metric", METRICS)
    def test_is_what_lloyd_finds(self, metric: Any) -> None:
        """From centroids that are at rest the other one stays where they are."""
        maps = self.maps()
        options = KMeansOptions(5, metric=metric, iterations=100)
        labels, centroids = fit_each(maps, options, range(6))
        for rows, own, found in zip(maps.numpy(), labels.numpy(), centroids.numpy(), strict=True):
            again = lloyd(prepared(rows, metric == "cosine"), found, options)
            np.testing.assert_allclose(again.rows, found, atol=1e-5)
            one = Centroids(found, metric, 0.0, np.bincount(own, minlength=5))
            near = scores(rows, one)
            assert (near.max(1) - near[np.arange(len(rows)), own]).max() < 1e-5
            assert again.counts.tolist() == one.counts.tolist()

    @pytest.mark.parametrize("metric", METRICS)
    @settings(max_examples=60, deadline=None)
    @given(points=small, k=st.integers(1, 5), seed=st.integers(0, 3))
    def test_small_ones(self, metric: Any, points: np.ndarray, k: int, seed: int) -> None:
        cosine = metric == "cosine"
        distinct = {tuple(row) for row in np.round(prepared(points, cosine), 5) if row.any() or not cosine}
        labels, centroids = fit_each(torch.from_numpy(points)[None], KMeansOptions(k, metric=metric), [seed])
        assert 0 <= int(labels.min()) <= int(labels.max()) < k
        assert torch.isfinite(centroids).all()
        found = Centroids(centroids[0].numpy(), metric, 0.0, np.zeros(k, np.int64))
        near = scores(points, found)
        assert (near.max(1) - near[np.arange(len(points)), labels[0].numpy()]).max() < 1e-5
        assert len(set(labels[0].tolist())) <= max(1, len(distinct))
        if len(distinct) <= k and distinct:  # then every vector is its own centroid
            rows = prepared(points, cosine)
            rows = rows[rows.any(1)] if cosine else rows
            best = scores(rows, found).max(1)
            np.testing.assert_allclose(best, 1 if cosine else 0, atol=1e-5)

    @pytest.mark.parametrize("metric", METRICS)
    def test_finds_what_is_far_apart(self, metric: Any) -> None:
        drawings = [true_blobs(200, 4, 9, seed) for seed in range(4)]
        maps = torch.from_numpy(np.stack([points for points, _ in drawings]))
        labels, _ = fit_each(maps, KMeansOptions(4, metric=metric, restarts=10), range(4))
        for own, (_, label) in zip(labels.numpy(), drawings, strict=True):
            assert same_partition(own, label)

    def test_empty_cluster_starts_again(self) -> None:
        points = torch.tensor([[[0.0], [1], [2], [50]], [[0.0], [0], [0], [0]]], dtype=torch.float64)
        start = torch.tensor([[[1.0], [1000], [2000]], [[0.0], [1], [2]]], dtype=torch.float64)
        grid = _on_grid(points, False)
        found = _lloyd(grid, start / grid.scale[:, None, None], KMeansOptions(3, metric="euclidean"))
        rows = (found.centroids * grid.scale[:, None, None])[0, :, 0]
        assert [round(x, 3) for x in sorted(rows.tolist())] in ([0, 1.5, 50], [0.5, 2, 50])
        assert found.labels[1].tolist() == [0] * 4

    def test_seeds(self) -> None:
        maps = self.maps(1).expand(5, -1, -1)
        labels, _ = fit_each(maps, KMeansOptions(8, iterations=1), range(5))
        assert len({tuple(row) for row in labels.tolist()}) > 1
        with pytest.raises(ValueError, match="4 seeds for 5 images"):
            fit_each(maps, KMeansOptions(8), range(4))

    def test_huge_and_tiny_numbers(self) -> None:
        points, label = true_blobs(60, 3, 4)
        for scale in (1e-30, 1e30):
            for metric in METRICS:
                options = KMeansOptions(3, metric=metric, restarts=4)
                labels, _ = fit_each(torch.from_numpy(points * np.float32(scale))[None], options, [0])
                assert same_partition(labels[0].numpy(), label)

    def test_restarts_choose_the_best(self) -> None:
        points = drawn(300, 6, 30, spread=0.1)
        objectives = []
        for restarts in range(1, 7):
            options = KMeansOptions(12, metric="euclidean", iterations=3, restarts=restarts)
            labels, centroids = fit_each(torch.from_numpy(points)[None], options, [0])
            objectives.append(float(((points - centroids[0].numpy()[labels[0].numpy()]) ** 2).sum()))
        assert all(later <= earlier * (1 + 1e-5) for earlier, later in pairwise(objectives))
        assert objectives[-1] < objectives[0]

    def test_no_gradient(self) -> None:
        maps = self.maps().requires_grad_()
        assert not fit_each(maps, KMeansOptions(2), range(6))[1].requires_grad


def test_faiss_has_a_gpu_for_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its documentation a GPU's memory is not to be shared by threads, and workers cluster side by side."""
    module = sys.modules[nearest.__module__]
    points, busy, most = prepared(drawn(400), True), [0], [0]
    make = module._index

    class Watched:
        def __init__(self, index: Any) -> None:
            self._index = index

        def search(self, *arguments: Any) -> Any:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            time.sleep(0.01)
            found = self._index.search(*arguments)
            busy[0] -= 1
            return found

    monkeypatch.setattr(module, "_has_gpu", lambda device: device is not None)
    monkeypatch.setattr(module, "_index", lambda centroids, cosine, gpu: Watched(make(centroids, cosine, None)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: nearest(points, points[:5], True, torch.device("cuda"), margins=True), range(8)))
    assert most == [1]
    expected = nearest(points, points[:5], True, None, margins=True)
    assert all(np.array_equal(one, other) for each in found for one, other in zip(each, expected, strict=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"k": 0}, "k 0: give a whole number from 1 up"),
        ({"metric": "manhattan"}, "choose cosine or euclidean"),
        ({"iterations": 0}, "iterations 0: give"),
        ({"restarts": 0}, "restarts 0: give"),
        ({"seed": -1}, "seed -1: give"),
        ({"max_points": -1}, "max_points -1: give"),
        ({"k": 8, "max_points": 7}, "at least as many as there are clusters, 8"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        KMeansOptions(**{"k": 2, **wrong})
