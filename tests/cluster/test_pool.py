"""The pool against its definition, computed on sets of patches with no regard for speed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.cluster.merge import merge_sequence, partition, snapshot_steps
from ovskit.core.cluster.pool import Pool, pool_regions

THRESHOLDS = np.array([0.8, 0.6, 0.4, 0.2, 0.0, -0.5])


def pooled(patch: np.ndarray, nms: float, min_patches: int, cosine: bool = False) -> tuple[Pool, list[np.ndarray]]:
    buffer = patch.astype(np.float32, order="C", copy=True)
    sequence = merge_sequence(buffer, stop_similarity=float(THRESHOLDS[-1]))
    steps = snapshot_steps(sequence, THRESHOLDS)
    partitions = [partition(sequence, int(s)) for s in steps]
    return pool_regions(sequence, steps, patch, buffer, nms=nms, min_patches=min_patches, cosine=cosine), partitions


def by_definition(partitions: list[np.ndarray], nms: float, min_patches: int) -> dict[frozenset[int], int]:
    """Kept regions as sets of patches, with the first partition each stands in: greedy NMS over all pairs."""
    first: dict[frozenset[int], int] = {}
    for t, labels in enumerate(partitions):
        for label in np.unique(labels):
            region = frozenset(np.flatnonzero(labels.ravel() == label).tolist())
            if len(region) >= min_patches:
                first.setdefault(region, t)
    kept: list[frozenset[int]] = []
    for region in sorted(first, key=len, reverse=True):
        if all(len(region & other) / len(region | other) <= nms for other in kept):
            kept.append(region)
    return {region: first[region] for region in kept}


def cosine_score(patch: np.ndarray, region: frozenset[int]) -> float:
    members = patch.reshape(-1, patch.shape[2])[sorted(region)].astype(np.float64)
    feature = members.sum(0)
    norms = np.linalg.norm(members, axis=1) * np.linalg.norm(feature)
    return float(np.mean(np.divide(members @ feature, norms, out=np.zeros(len(members)), where=norms > 0)))


def persistence(partitions: np.ndarray, kept: dict[frozenset[int], int], nms: float) -> dict[frozenset[int], float]:
    """The share of partitions that show each kept region, or one that counts as its duplicate."""
    shows: dict[frozenset[int], set[int]] = {region: set() for region in kept}
    for t, labels in enumerate(partitions):
        for label in np.unique(labels):
            region = frozenset(np.flatnonzero(labels.ravel() == label).tolist())
            around = min((other for other in kept if region <= other), key=len, default=None)
            if around is not None and (region == around or len(region) > nms * len(around)):
                shows[around].add(t)
    return {region: len(found) / len(partitions) for region, found in shows.items()}


def region_set(pool: Pool, k: int) -> frozenset[int]:
    return frozenset(np.flatnonzero(pool.partitions[pool.level[k]].ravel() == pool.label[k]).tolist())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]), st.integers(1, 5), st.sampled_from(["f2", "f4"]),
)  # fmt: skip
def test_regions_first_levels_and_scores(h: int, w: int, c: int, seed: int, nms: float, min_patches: int, dtype: str) -> None:
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(h // 3 + 1, w // 3 + 1, c)).repeat(3, 0).repeat(3, 1)[:h, :w]
    patch = (coarse + random.normal(size=(h, w, c)) * random.uniform(0, 1)).astype(dtype)
    pool, partitions = pooled(patch, nms, min_patches)
    by_cosine, _ = pooled(patch, nms, min_patches, cosine=True)
    expected = by_definition(partitions, nms, min_patches)
    persists = persistence(partitions, expected, nms)
    found = {region_set(pool, k): int(pool.level[k]) for k in range(len(pool.level))}
    assert found == expected
    for k in range(len(pool.level)):
        region = region_set(pool, k)
        assert pool.patches[k] == len(region)
        assert pool.score[k] == pytest.approx(persists[region])
        assert region_set(by_cosine, k) == region
        assert by_cosine.score[k] == pytest.approx(cosine_score(patch, region), abs=2e-5)


def test_nms_one_keeps_every_distinct_region_once() -> None:
    patch = np.random.default_rng(5).normal(size=(8, 8, 3)).astype(np.float16)
    pool, partitions = pooled(patch, 1.0, 1)
    distinct = {frozenset(np.flatnonzero(p.ravel() == label).tolist()) for p in partitions for label in np.unique(p)}
    found = [region_set(pool, k) for k in range(len(pool.level))]
    assert len(found) == len(set(found))
    assert set(found) == distinct


def test_zero_vectors_have_a_cosine_of_zero() -> None:
    patch = np.zeros((3, 3, 2), np.float16)
    pool, _ = pooled(patch, 1.0, 1, cosine=True)
    assert (pool.score == 0).all()


def test_features_are_untouched() -> None:
    patch = np.random.default_rng(1).normal(size=(6, 5, 3)).astype(np.float32)
    before = patch.copy()
    pooled(patch, 0.9, 1)
    assert np.array_equal(patch, before)
