"""Indices of faiss: enough of the true neighbours, kept and read again, and refused where they are of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovskit.core.curate.index import choose_index, open_index
from ovskit.core.curate.kernels import unit
from ovskit.core.curate.neighbours import ExactSearch, Keys, find_neighbours
from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.progress import unwatched
from tests.rows import write_rows

RNG = np.random.default_rng(0)
N = 3000
ROWS = (RNG.normal(size=(150, 16))[RNG.integers(0, 150, N)] + 0.4 * RNG.normal(size=(N, 16))).astype(np.float16)
NAMES = [f"{k:04d}" for k in range(N)]


def keys(positions: np.ndarray) -> list[bytes]:
    return [NAMES[k].encode() for k in positions.tolist()]


KEYS: Keys = keys


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> RowFiles:
    return RowFiles([str(write_rows(tmp_path_factory.mktemp("rows") / "a.npz", NAMES, ROWS))])


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "IVF16,Flat", "Flat", "SQ8", "HNSW16"])
def test_it_finds_what_it_says(rows: RowFiles, factory: str) -> None:
    search = open_index(rows, factory, 8, 0.9, KEYS, path=None, watch=unwatched)
    assert search.report.recall >= 0.9
    queries, own = unit(ROWS.astype(np.float32)), np.arange(N)
    true = find_neighbours(queries, own, rows, 8, ExactSearch(rows), KEYS)
    found = find_neighbours(queries, own, rows, 8, search, KEYS)
    shares = [len(np.intersect1d(a, b)) / 8 for a, b in zip(true.positions, found.positions, strict=True)]
    assert abs(np.mean(shares) - search.report.recall) < 0.05  # of 1,000 rows, and of all
    both = true.positions == found.positions
    np.testing.assert_array_equal(true.similarity[both], found.similarity[both])  # re-ranked exactly
    assert np.all(np.diff(found.similarity, axis=1) <= 0)


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "IVF64,Flat"])
@pytest.mark.parametrize("n", [1, 700])
def test_lists_with_many_queries_give_what_queries_give(rows: RowFiles, factory: str, n: int, capfd: pytest.CaptureFixture[str]) -> None:
    search = open_index(rows, factory, 8, 0.9, KEYS, path=None, watch=unwatched)
    queries = unit(ROWS[:n].astype(np.float32))
    values, positions = search.search(queries, 5)
    one_by_one, others = search._index.search(queries, 20)
    np.testing.assert_allclose(values, one_by_one, atol=1e-5)
    differ = positions != others
    assert differ.mean() < 0.02
    assert capfd.readouterr().out == ""


def test_more_is_searched_until_enough_is_found(rows: RowFiles) -> None:
    little = open_index(rows, "IVF64,SQ8", 8, 0.01, KEYS, path=None, watch=unwatched).report
    all_of_it = open_index(rows, "IVF64,SQ8", 8, 0.9999, KEYS, path=None, watch=unwatched).report
    assert (little.nprobe, little.recall < all_of_it.recall) == (8, True)
    assert all_of_it.nprobe is not None
    assert all_of_it.nprobe > 8


def test_an_index_is_kept_and_read_again(rows: RowFiles, tmp_path: Path) -> None:
    path = tmp_path / "kept.index"
    first = open_index(rows, "IVF32,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)
    stamp = path.stat().st_mtime_ns
    again = open_index(rows, "IVF32,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)
    assert (again.report, path.stat().st_mtime_ns) == (first.report, stamp)
    queries = unit(ROWS[:50].astype(np.float32))
    np.testing.assert_array_equal(first.search(queries, 8)[1], again.search(queries, 8)[1])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept.index", "kept.index.json"]


def test_an_index_of_something_else_is_refused(rows: RowFiles, tmp_path: Path) -> None:
    path = tmp_path / "kept.index"
    open_index(rows, "IVF32,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)
    with pytest.raises(InputError, match="another than IVF16,SQ8"):
        open_index(rows, "IVF16,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)
    with RowFiles([str(write_rows(tmp_path / "b.npz", NAMES[:40], ROWS[:40]))]) as others, pytest.raises(InputError, match="of other rows"):
        open_index(others, "IVF32,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        open_index(rows, "IVF32,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)
    (tmp_path / "kept.index.json").unlink()
    with pytest.raises(InputError, match=r"has no kept\.index\.json"):
        open_index(rows, "IVF32,SQ8", 8, 0.9, KEYS, path=path, watch=unwatched)


@pytest.mark.parametrize(
    ("factory", "said"), [("IVF", "knows no such index"), ("nonsense", "no such index"), ("IVF4096,Flat", "4096 lists")]
)
def test_factories_that_cannot_be(rows: RowFiles, factory: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_index(rows, factory, 8, 0.9, KEYS, path=None, watch=unwatched)


def test_what_auto_chooses() -> None:
    assert choose_index("auto", 1_000_000, 1_000_000, gpu=False) == "exact"
    assert choose_index("auto", 1_000_001, 1_000_000, gpu=False) == "IVF4096,SQ8"
    assert choose_index("auto", 27_000_000, 27_000_000, gpu=True) == "exact"
    assert choose_index("auto", 27_000_000, 270_000, gpu=False) == "IVF65536,SQ8"
    assert choose_index("IVF5,Flat", 10, 10, gpu=False) == "IVF5,Flat"
