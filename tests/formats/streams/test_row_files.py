"""Rows of pooled streams by position: what is read is what was written, and nothing damaged passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams import row_files
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.formats.streams.row_files import Named, RowFiles
from ovskit.core.records import FeatureMap, Image
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.shard import Shard
from tests.rows import write_rows

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(37, 8)).astype(np.float16)
NAMES = [f"{k:03d}.jpg" for k in range(37)]


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    one = write_rows(tmp_path / "a.npz", NAMES[:23], ROWS[:23])
    other = write_rows(tmp_path / "b.npz", NAMES[23:], ROWS[23:].astype(np.float32), root="more")
    return [str(one), str(other)]


def test_chunks_are_all_rows_in_order(two: list[str]) -> None:
    with RowFiles(two) as files:
        assert (len(files), files.width) == (37, 8)
        for size in (1, 7, 100):
            found = list(files.chunks(size))
            assert [start for start, _ in found] == np.cumsum([0, *(len(rows) for _, rows in found)])[:-1].tolist()
            np.testing.assert_array_equal(np.concatenate([rows for _, rows in found]), ROWS.astype(np.float32))
            assert all(rows.dtype == np.float32 for _, rows in found)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(positions=st.lists(st.integers(0, 36), max_size=60), gap=st.sampled_from([0, 1, 16]))
def test_any_rows_in_any_order(two: list[str], positions: list[int], gap: int) -> None:
    where = np.array(positions, np.int64)
    with pytest.MonkeyPatch.context() as patch, RowFiles(two) as files:
        patch.setattr(row_files, "_GAP", gap)
        np.testing.assert_array_equal(files.take(where), ROWS[where].astype(np.float32))
        assert files.names(where) == [Named(NAMES[k], "imgs" if k < 23 else "more") for k in positions]


def test_infinities_are_found_by_either_way(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[11, 3] = np.inf
    with RowFiles([str(write_rows(tmp_path / "a.npz", NAMES, rows))]) as files:
        with pytest.raises(InputError, match=r"011\.jpg holds infinities or NaN"):
            list(files.chunks(9))
        with pytest.raises(InputError, match=r"011\.jpg holds infinities or NaN"):
            files.take(np.array([3, 11]))
        np.testing.assert_array_equal(files.take(np.array([10, 12])), ROWS[[10, 12]].astype(np.float32))


def test_damage_is_found(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.npz", NAMES, ROWS)
    data = bytearray(path.read_bytes())
    data[data.index(ROWS[7].tobytes()) + 3] ^= 1
    data[data.index(b"031.jpg")] ^= 1
    path.write_bytes(data)
    with RowFiles([str(path)]) as files:
        with pytest.raises(InputError, match=r"000000000006/embedding\.npy is damaged"):
            list(files.chunks(100))
        with pytest.raises(InputError, match=r"000000000031/images\.json is damaged"):
            files.names(np.array([33]))
        assert files.names(np.array([1]))[0].file_name == "001.jpg"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    path = write_rows(tmp_path / "a.npz", NAMES, ROWS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="not a whole feature stream"):
        RowFiles([str(path)])


def test_other_streams_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "patches.npz"
    with path.open("wb") as file:
        writer = FeatureWriter(file, FeatureHeader({}, None, "float16", ""))
        writer.write(FeatureMap(Image(1, "a.jpg", 8, 8), np.ones((1, 1, 4), np.float16)))
        writer.finish()
    with pytest.raises(InputError, match="features of patches.*--pool cls"):
        RowFiles([str(path)])
    np.savez(tmp_path / "numpy.npz", rows=ROWS)
    with pytest.raises(InputError, match="not a whole feature stream"):
        RowFiles([str(tmp_path / "numpy.npz")])
    with pytest.raises(MissingInputError, match="nowhere"):
        RowFiles([str(tmp_path / "nowhere.npz")])


def test_rows_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "a.npz", NAMES, ROWS)
    other = write_rows(tmp_path / "b.npz", NAMES, ROWS, model={"model": "m", "weights_sha256": "1" * 64, "dim": 8})
    with pytest.raises(InputError, match="different models"):
        RowFiles([str(one), str(other)])
    wide = write_rows(tmp_path / "c.npz", NAMES, np.ones((37, 9), np.float16))
    with pytest.raises(InputError, match="rows of 9 numbers, and those before have 8"):
        RowFiles([str(one), str(wide)])


def test_shards_of_a_run_are_all_there_or_one_alone(tmp_path: Path) -> None:
    parts = [str(write_rows(tmp_path / f"{k}.npz", NAMES[k::3], ROWS[k::3], shard=Shard(k, 3))) for k in range(3)]
    other = str(write_rows(tmp_path / "other.npz", NAMES, ROWS, root="elsewhere"))
    for paths in (parts, parts[::-1], [*parts, other], parts[:1], [parts[1], other]):
        with RowFiles(paths) as files:
            assert len(files) == sum(len(NAMES[k::3]) for k in range(3) if parts[k] in paths) + 37 * (other in paths)
    with pytest.raises(InputError, match="1/3 is missing"):
        RowFiles([parts[0], other, parts[2]])
    with pytest.raises(InputError, match="both shard 0/3"):
        RowFiles([*parts, parts[0]])


def write_metadata(path: Path, names: list[str]) -> str:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra: parquet)")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"image_path": names, "caption": ["a dog"] * len(names)}), path)
    return str(path)


@pytest.mark.parametrize("kind", ["<f2", "<f4"])
def test_matrices_of_clip_retrieval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(row_files, "_MATRIX_BLOCK", 7)
    for k, part in enumerate((slice(0, 20), slice(20, 37))):
        np.save(tmp_path / f"img_emb_{k}.npy", ROWS[part].astype(kind))
        write_metadata(tmp_path / f"metadata_{k}.parquet", [str(tmp_path / name) for name in NAMES[part]] if k else NAMES[part])
    paths, lists = ([str(tmp_path / form.format(k)) for k in (0, 1)] for form in ("img_emb_{}.npy", "metadata_{}.parquet"))
    where = np.array([36, 0, 19, 20, 7])
    with RowFiles(paths, metadata=lists) as files:
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in files.chunks(9)]), ROWS.astype(np.float32))
        np.testing.assert_array_equal(files.take(where), ROWS[where].astype(np.float32))
        assert files.names(where) == [Named(NAMES[k], str(tmp_path)) for k in where]
    with pytest.raises(UsageError, match=r"2 \.npy files and 1 metadata files"):
        RowFiles(paths, metadata=lists[:1])
    with pytest.raises(InputError, match="20 rows, and .*metadata_1.parquet lists 17 images: they do not belong together"):
        RowFiles(paths, metadata=lists[::-1])


def test_matrices_that_are_broken(tmp_path: Path) -> None:
    names = write_metadata(tmp_path / "m.parquet", NAMES)
    rows = ROWS.astype(np.float32)
    rows[30, 1] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    with RowFiles([str(tmp_path / "nan.npy")], metadata=[names]) as files, pytest.raises(InputError, match=r"030\.jpg holds infinities"):
        list(files.chunks(100))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", rows[0])
    whole = (tmp_path / "nan.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects", "flat", "cut", "empty"):
        with pytest.raises(InputError, match=f"{name}.npy"):
            RowFiles([str(tmp_path / f"{name}.npy")], metadata=[names])
