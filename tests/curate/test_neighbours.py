"""Neighbours: equal to looking at everything one by one, whatever is searched together and however wrong the fast search is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovskit.core.curate import neighbours
from ovskit.core.curate.kernels import Float32, normalise, unit
from ovskit.core.curate.neighbours import ExactSearch, find_neighbours
from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.records import Int64
from tests.reference.curation import nearest
from tests.rows import write_rows


class Rough:
    """A search that is off by about as much as ``error``."""

    def __init__(self, rows: np.ndarray, error: float, seed: int) -> None:
        self._rows, self._off, self._rng = unit(rows.astype(np.float32)), error, np.random.default_rng(seed)
        self.error = error + 1e-6  # of float32

    def search(self, queries: Float32, count: int) -> tuple[Float32, Int64]:
        values = (queries @ self._rows.T + self._rng.uniform(-self._off, self._off, (len(queries), len(self._rows)))).astype(np.float32)
        order = np.argsort(-values, axis=1)[:, :count]
        return np.take_along_axis(values, order, axis=1), order.astype(np.int64)


def keys_of(names: list[str]) -> neighbours.Keys:
    return lambda positions: [names[k].encode() for k in positions.tolist()]


def rows_of(seed: int, n: int, groups: int) -> np.ndarray:
    """Rows with copies and near copies among them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 8))
    rows = centres[rng.integers(0, groups, n)] + rng.choice([0.0, 1e-4, 0.3], n)[:, None] * rng.normal(size=(n, 8))
    return rows.astype(np.float16)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30), n=st.integers(1, 60), groups=st.integers(1, 30), count=st.integers(1, 9),
    error=st.sampled_from([0.0, 0.01, 0.2]), limit=st.sampled_from([None, 0.999]),
)  # fmt: skip
def test_they_are_the_references(tmp_path: Path, seed: int, n: int, groups: int, count: int, error: float, limit: float | None) -> None:
    rows = rows_of(seed, n, groups)
    names = [f"{k:02d}" for k in np.random.default_rng(seed).permutation(n)]
    with pytest.MonkeyPatch.context() as patch, RowFiles([str(write_rows(tmp_path / "a.npz", names, rows))]) as files:
        patch.setattr(neighbours, "_SPARE", 1)
        patch.setattr(neighbours, "_QUERIES", 7)
        there = unit(rows.astype(np.float32))
        search = Rough(rows, error, seed)
        found = find_neighbours(there, np.arange(n), files, count, search, keys_of(names), near_duplicates=limit)
        for k in range(n):
            positions, cosines = nearest(there[k], there, names, k, count, np.inf if limit is None else limit)
            kept = found.positions[k][found.positions[k] >= 0]
            assert kept.tolist() == positions
            np.testing.assert_allclose(found.similarity[k][: len(kept)], cosines, atol=1e-12)


@pytest.mark.parametrize("chunk", [3, 16, 1000])
@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_exact_search_does_not_depend_on_blocks_nor_on_what_is_asked_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, device: torch.device | None
) -> None:
    rows = rows_of(1, 333, 60)
    names = [f"{k:03d}" for k in range(333)]
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    with RowFiles([str(write_rows(tmp_path / "a.npz", names, rows))]) as files:
        there, own = unit(rows.astype(np.float32)), np.arange(333)
        found = find_neighbours(there, own, files, 8, ExactSearch(files, device), keys_of(names))
        expected = [nearest(there[k], there, names, k, 8)[0] for k in range(333)]
        assert found.positions.tolist() == expected
        some = np.array([300, 7, 7, 42])
        part = find_neighbours(there[some], own[some], files, 8, ExactSearch(files, device), keys_of(names))
        np.testing.assert_array_equal(part.positions, found.positions[some])
        np.testing.assert_array_equal(part.similarity, found.similarity[some])


def test_more_copies_than_candidates_are_in_the_order_of_their_keys(tmp_path: Path) -> None:
    rows = np.ones((200, 8), np.float16)
    names = [f"{k:03d}" for k in np.random.default_rng(3).permutation(200)]
    with RowFiles([str(write_rows(tmp_path / "a.npz", names, rows))]) as files:
        there = unit(rows[:1].astype(np.float32))
        found = find_neighbours(there, np.array([5]), files, 4, ExactSearch(files), keys_of(names))
        assert [names[k] for k in found.positions[0]] == [name for name in sorted(names) if name != names[5]][:4]
        none = find_neighbours(there, np.array([5]), files, 4, ExactSearch(files), keys_of(names), near_duplicates=0.999)
        assert none.positions.tolist() == [[-1] * 4]


def test_fewer_than_wanted(tmp_path: Path) -> None:
    rows = rows_of(0, 3, 3)
    with RowFiles([str(write_rows(tmp_path / "a.npz", ["a", "b", "c"], rows))]) as files:
        found = find_neighbours(unit(rows.astype(np.float32)), np.arange(3), files, 8, ExactSearch(files), keys_of(["a", "b", "c"]))
    assert ((found.positions >= 0).sum(axis=1) == 2).all()
    assert np.isneginf(found.similarity[found.positions < 0]).all()


def test_rows_of_zeros_are_like_nothing() -> None:
    rows = np.zeros((2, 8), np.float32)
    rows[1, 0] = 3
    normalise(rows)
    assert rows.tolist() == [[0.0] * 8, [1.0] + [0.0] * 7]
