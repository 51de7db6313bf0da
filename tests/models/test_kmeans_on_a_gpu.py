"""k-means on a card: the same bits as on a CPU, since all its sums are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ovskit.core.models.kmeans import KMeansOptions, assign, fit, fit_each, per_image

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
METRICS: Any = ("cosine", "euclidean")


def drawn(n: int, c: int, blobs: int, seed: int = 0) -> np.ndarray:
    """Vectors around ``blobs`` centres, (n, c) float32, in no order."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(blobs, c))[random.integers(0, blobs, n)] + 0.4 * random.normal(size=(n, c))).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("lot", [1 << 30, 8 * 300 * 64 * 3])
def test_images_in_lots_have_the_same_bits(metric: Any, lot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one product, and three at a time. No tolerance: what is summed is on a grid of float64."""
    monkeypatch.setitem(per_image._BYTES, "cuda", lot)
    maps = torch.stack([torch.from_numpy(drawn(300, 64, 5, seed)) for seed in range(10)])
    options = KMeansOptions(8, metric=metric, restarts=2)
    here, there = fit_each(maps, options, range(10)), fit_each(maps.to(GPU), options, range(10))
    assert there[0].device.type == "cuda"
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[1], there[1].cpu())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types_and_clusters_that_run_empty(dtype: torch.dtype) -> None:
    maps = torch.stack([torch.from_numpy(drawn(40, 6, 2, seed)).round() for seed in range(4)]).to(dtype)
    maps[1] = maps[1, :1]  # one vector only
    options = KMeansOptions(7, metric="euclidean")
    here, there = fit_each(maps, options, range(4)), fit_each(maps.to(GPU), options, range(4))
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[1], there[1].cpu())


@pytest.mark.gpu(real="faiss looks for a card by itself")
@pytest.mark.parametrize("metric", METRICS)
def test_faiss_finds_the_same_bits(metric: Any) -> None:
    """Its sums decide nothing that their rounding could: no tolerance."""
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        pytest.skip("this faiss is the one without a card (faiss-gpu-cu12 has one)")
    points = drawn(20_000, 64, 30)
    options = KMeansOptions(20, metric=metric)
    here, there = fit(points, options), fit(points, options, device=GPU)
    assert np.array_equal(here.rows, there.rows)
    assert here.objective == there.objective
    for a, b in zip(assign(points, here), assign(points, here, device=GPU), strict=True):
        assert np.array_equal(a, b)
