from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.cluster import merge
from ovskit.core.cluster.merge import MergeSequence, merge_sequence, partition, snapshot_steps
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import merge as reference

Features = npt.NDArray[np.float32]
SIX = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    return rng.standard_normal(shape).astype(np.float32)


def smooth(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    """Neighbours alike, as in real feature maps, so that regions grow and the thresholds differ."""
    wide = rng.standard_normal((shape[0] + 2, shape[1] + 2, shape[2]))
    return sum(wide[i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3)).astype(np.float32)


def non_negative(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    return rng.random(shape, dtype=np.float32)


def half_precision(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    return smooth(rng, shape).astype(np.float16).astype(np.float32)


def uneven(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    """Norms that differ by many orders of magnitude, as with outlier tokens."""
    return (smooth(rng, shape) * 10.0 ** rng.integers(-12, 13, (*shape[:2], 1))).astype(np.float32)


def integers(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    return rng.integers(-2, 3, shape).astype(np.float32)


def binary(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    return rng.integers(0, 2, shape).astype(np.float32)


def constant(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    return np.broadcast_to(normal(rng, (1, 1, shape[2])), shape).copy()


def palette(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    """Few different vectors with full mantissas: ties in exact arithmetic that rounding would break."""
    return normal(rng, (1, 4, shape[2]))[0][rng.integers(0, 4, shape[:2])]


def multiples(rng: np.random.Generator, shape: tuple[int, int, int]) -> Features:
    """Few directions with lengths that are small whole numbers."""
    return palette(rng, shape) * rng.integers(1, 8, (*shape[:2], 1)).astype(np.float32)


LAZY_DEGREES = (2, merge.LAZY_DEGREE, 10**9)  # always bound first, as shipped, never
GENERIC = (normal, smooth, non_negative, half_precision, uneven)
TIED = (integers, binary, constant, palette, multiples)


def merged(features: Features, **options: Any) -> MergeSequence:
    """``merge_sequence`` of a copy, down to one region unless told otherwise."""
    return merge_sequence(features.copy(), **{"stop_similarity": None, **options})


@st.composite
def grids(draw: st.DrawFn, kinds: tuple[Any, ...], sides: int = 14) -> Features:
    make = draw(st.sampled_from(kinds))
    shape = (draw(st.integers(1, sides)), draw(st.integers(1, sides)), draw(st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = make(rng, shape)
    features[rng.random(shape[:2]) < draw(st.sampled_from((0.0, 0.0, 0.3)))] = 0
    return features


thresholds = st.lists(st.sampled_from([1.0, 0.9, 0.75, 0.6, 0.5, 0.3, 0.1, 0.0, -0.2, -1.0]), min_size=1, unique=True).map(
    lambda values: sorted(values, reverse=True)
)
connectivities = st.sampled_from([4, 8])


@pytest.mark.parametrize("kinds", [GENERIC, TIED], ids=["generic", "tied"])
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_partitions_equal_the_float64_reference(kinds: tuple[Any, ...], data: st.DataObject) -> None:
    features = data.draw(grids(kinds))
    levels, connectivity = data.draw(thresholds), data.draw(connectivities)
    sequence = merged(features, stop_similarity=levels[-1], connectivity=connectivity)
    found = [partition(sequence, int(step)) for step in snapshot_steps(sequence, levels)]
    expected = reference.partitions(features, levels, connectivity)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("make", GENERIC + TIED)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_every_merge_equals_the_reference(make: Any, connectivity: Literal[4, 8], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    for shape in ((7, 8, 3), (5, 6, 33), (5, 5, 1)):
        features = make(rng, shape)
        expected = list(reference.merges(features, connectivity))
        for degree in LAZY_DEGREES:
            monkeypatch.setattr(merge, "LAZY_DEGREE", degree)
            sequence = merged(features, connectivity=connectivity)
            assert sequence.first.tolist() == [step.first for step in expected]
            assert sequence.second.tolist() == [step.second for step in expected]
            np.testing.assert_allclose(sequence.similarity, [step.similarity for step in expected], rtol=0, atol=1.01e-9)


@settings(max_examples=15, deadline=None)
@given(grids((normal, smooth, half_precision), sides=10), connectivities)
def test_rounding_changes_nothing_without_ties(features: Features, connectivity: Literal[4, 8]) -> None:
    if features.shape[2] == 1 or not features.any(axis=2).all():  # cosines of ±1 and 0 only: all of them ties
        return
    found = merged(features, connectivity=connectivity)
    expected = [(step.first, step.second) for step in reference.merges(features, connectivity, decimals=None)]
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected


@pytest.mark.parametrize("make", [smooth, half_precision, uneven, palette])
def test_large_grid_is_the_same_with_and_without_bounds(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = make(np.random.default_rng(3), (60, 50, 24))
    found = []
    for degree in LAZY_DEGREES:
        monkeypatch.setattr(merge, "LAZY_DEGREE", degree)
        found.append(merged(features, connectivity=8))
    lazy, shipped, eager = found
    for other in (lazy, shipped):
        np.testing.assert_array_equal(other.first, eager.first)
        np.testing.assert_array_equal(other.second, eager.second)
        np.testing.assert_array_equal(other.similarity, eager.similarity)
    assert lazy.evaluations != shipped.evaluations != eager.evaluations


@pytest.mark.parametrize("make", [normal, non_negative, half_precision, palette, multiples])
def test_large_grid_is_the_same_with_and_without_estimates(make: Any) -> None:
    features = make(np.random.default_rng(9), (60, 50, 24))
    estimated = merged(features)
    evaluated = merged(features * np.float32(2.0**-60))  # too small for products in single precision
    np.testing.assert_array_equal(estimated.first, evaluated.first)
    np.testing.assert_array_equal(estimated.second, evaluated.second)
    np.testing.assert_array_equal(estimated.similarity, evaluated.similarity)
    assert estimated.evaluations != evaluated.evaluations


@pytest.mark.parametrize("make", [normal, smooth, uneven])
def test_similarities_are_those_of_sums_in_float64(make: Any) -> None:
    features = make(np.random.default_rng(5), (40, 40, 50))
    sequence = merged(features)
    sums = features.reshape(-1, 50).astype(np.float64)
    for first, second, similarity in zip(sequence.first, sequence.second, sequence.similarity, strict=True):
        assert similarity == pytest.approx(reference.cosine(sums[first], sums[second], None), rel=0, abs=0.6e-9)
        sums[first] += sums[second]


@settings(max_examples=25, deadline=None)
@given(grids(GENERIC + TIED), connectivities)
def test_partitions_are_connected_named_by_their_lowest_patch_and_nested(features: Features, connectivity: Literal[4, 8]) -> None:
    from skimage.measure import label

    sequence = merged(features, connectivity=connectivity)
    patches = features.shape[0] * features.shape[1]
    assert len(sequence.first) == patches - 1
    assert (sequence.first < sequence.second).all()
    assert len(set(sequence.second.tolist())) == patches - 1
    finer = partition(sequence, 0)
    np.testing.assert_array_equal(finer.ravel(), np.arange(patches))
    for step in (patches // 3, patches // 2, patches - 1):
        coarser = partition(sequence, step)
        names, lowest = np.unique(coarser, return_index=True)
        np.testing.assert_array_equal(names, lowest)
        assert len(names) == patches - step
        assert label(coarser, background=-1, connectivity=connectivity // 4).max() == patches - step
        np.testing.assert_array_equal(coarser, coarser.ravel()[finer])
        finer = coarser


@settings(max_examples=20, deadline=None)
@given(grids(GENERIC + TIED, sides=9), st.floats(-1, 1), st.integers(1, 90))
def test_stops_where_the_full_sequence_first_falls_below_or_is_few_enough(features: Features, similarity: float, count: int) -> None:
    everything = merged(features)
    steps = int(snapshot_steps(everything, [similarity])[0])
    stopped = merged(features, stop_similarity=similarity)
    np.testing.assert_array_equal(stopped.second, everything.second[:steps])
    counted = merged(features, stop_count=count)
    np.testing.assert_array_equal(counted.second, everything.second[: max(0, features.shape[0] * features.shape[1] - count)])


def on_circle(*degrees: float) -> Features:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None].astype(np.float32)


def test_a_merge_can_raise_the_best_similarity_and_the_first_crossing_counts() -> None:
    sequence = merged(on_circle(55, 0, 50))
    np.testing.assert_allclose(sequence.similarity, np.cos(np.deg2rad([50, 30])), atol=1e-6)
    assert snapshot_steps(sequence, [0.9, 0.7, 0.6]).tolist() == [0, 0, 2]


def test_snapshots_of_a_sequence_that_is_not_monotone() -> None:
    similarity = np.array([0.9, 0.55, 0.7, 0.3])
    sequence = MergeSequence(1, 5, np.zeros(4, np.int32), np.arange(1, 5, dtype=np.int32), similarity, 0, 0)
    steps = snapshot_steps(sequence, [0.95, 0.9, 0.6, 0.55, 0.5, 0.2])
    assert steps.tolist() == [0, 1, 1, 3, 3, 4]
    assert steps.dtype == np.int32


@pytest.mark.parametrize("threshold", [0.6, 0.1 * 6, 0.6000000000000001])
def test_a_similarity_equal_to_the_threshold_is_not_below_it(threshold: float) -> None:
    features = np.array([[[3, 4], [1, 0]]], np.float32)
    assert len(merged(features, stop_similarity=threshold).first) == 1
    assert snapshot_steps(merged(features), [threshold]).tolist() == [1]
    assert len(merged(features, stop_similarity=0.6001).first) == 0


def test_ties_go_to_the_row_major_lowest_pair() -> None:
    sequence = merged(np.ones((3, 4, 5), np.float32) / 3)
    assert sequence.first.tolist() == [0] * 11
    assert sequence.second.tolist() == list(range(1, 12))
    assert sequence.similarity.tolist() == [1.0] * 11
    opposite = merged(on_circle(0, 90, 90, 180, 180, 270, 270))
    assert list(zip(opposite.first[:3], opposite.second[:3], strict=True)) == [(1, 2), (3, 4), (5, 6)]


def test_zero_vectors_are_unlike_everything_but_not_opposite() -> None:
    features = np.zeros((1, 4, 2), np.float32)
    features[0, 0] = features[0, 3] = 1, 1
    assert len(merged(features, stop_similarity=0.1).first) == 0
    assert merged(features, stop_similarity=0.0).similarity.tolist() == [0.0, 0.0, 1.0]
    cancelling = np.array([[[1], [-1], [3]]], np.float32)
    assert merged(cancelling).similarity.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (2, 2, 1)])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_thin_grids(shape: tuple[int, int, int], connectivity: Literal[4, 8]) -> None:
    features = normal(np.random.default_rng(1), shape)
    sequence = merged(features, stop_similarity=SIX[-1], connectivity=connectivity)
    found = [partition(sequence, int(step)) for step in snapshot_steps(sequence, SIX)]
    np.testing.assert_array_equal(found, reference.partitions(features, SIX, connectivity))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e27])
def test_scale_does_not_matter(scale: float) -> None:
    features = smooth(np.random.default_rng(2), (9, 9, 7))
    power = np.float32(2.0 ** round(np.log2(scale)))
    np.testing.assert_array_equal(merged(features * power).second, merged(features).second)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e30])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (4, 5)])
def test_values_out_of_range_are_refused_by_place(value: float, place: tuple[int, int]) -> None:
    features = normal(np.random.default_rng(0), (5, 6, 37))
    features[place][-1] = value
    before = features.copy()
    with pytest.raises(InputError, match=rf"row {place[0]}, column {place[1]} "):
        merge_sequence(features, stop_similarity=0.1)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 4, 0)])
def test_an_empty_grid_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="empty"):
        merge_sequence(np.zeros(shape, np.float32), stop_similarity=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stop_count": 0}, "0 regions"), ({"connectivity": 6}, "connectivity is 6"), ({"stop_similarity": float("nan")}, "NaN")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        merged(np.ones((2, 2, 2), np.float32), **options)


@pytest.mark.parametrize(
    "features",
    [
        np.ones((2, 2, 2)),
        np.ones((2, 2), np.float32),
        np.ones((2, 3, 4), np.float32).transpose(1, 0, 2),
        np.ones((4, 2, 2), np.float32)[::2],
    ],
    ids=["float64", "two axes", "transposed", "strided"],
)
def test_arrays_that_cannot_be_built_in_are_refused(features: Any) -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        merge_sequence(features, stop_similarity=0.1)


def test_a_step_beyond_the_sequence_is_refused() -> None:
    sequence = merged(np.ones((2, 2, 2), np.float32))
    for step in (-1, 4):
        with pytest.raises(ValueError, match="outside the sequence of 3 merges"):
            partition(sequence, step)


DIGEST = """
import json, numpy as np
from ovskit.core.cluster.merge import merge_sequence
sequence = merge_sequence(np.load({path!r}), stop_similarity=None)
print(json.dumps([sequence.first.tolist(), sequence.second.tolist(), sequence.similarity.tolist(), sequence.evaluations]))
"""


@pytest.mark.slow
def test_another_processor_gives_the_same_sequence(tmp_path: Path) -> None:
    """Compiled for the plainest processor of this architecture: narrow vectors, no fused multiply-add."""
    features = smooth(np.random.default_rng(11), (24, 24, 77))
    np.save(tmp_path / "features.npy", features)
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    code = DIGEST.format(path=str(tmp_path / "features.npy"))
    output = subprocess.run([sys.executable, "-c", code], env={**os.environ, **plain}, capture_output=True, text=True, check=True).stdout
    here = merged(features)
    assert json.loads(output) == [here.first.tolist(), here.second.tolist(), here.similarity.tolist(), here.evaluations]
