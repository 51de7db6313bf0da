"""Files of centroids: what is written is read back, and nothing else is read."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.streams.centroids import HEADER, Centroids, check_feature_model, load_centroids, save_centroids
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.formats.streams.npy import npy_chunks
from ovskit.core.formats.streams.zipstream import StoredZipWriter
from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError

MODEL = {"name": "dino-vits8", "model": "timm:vit_small_patch8_224.dino", "facet": "key", "layer": -1, "dim": 4, "weights_sha256": "ab"}
ABOUT = {"model": MODEL, "method": "kmeans", "pg": [{"id": "ovs-cluster"}]}
EUCLIDEAN = Centroids(np.arange(12, dtype=np.float32).reshape(3, 4), "euclidean", 2.5, np.array([5, 0, 7]))
COSINE = Centroids(np.eye(2, 4, dtype=np.float32), "cosine", 0.25, np.array([3, 4]))
NAMED = {"dataset": EUCLIDEAN, "category/0": COSINE}


def written(named: dict[str, Centroids] = NAMED, about: dict[str, Any] = ABOUT) -> bytes:
    out = io.BytesIO()
    save_centroids(out, named, about)
    return out.getvalue()


def made(header: Any, *members: tuple[str, np.ndarray | bytes]) -> bytes:
    """A file of our container with anything in it."""
    out = io.BytesIO()
    with StoredZipWriter(out) as writer:
        writer.write(HEADER, header if isinstance(header, bytes) else jsonbytes.dumps(header))
        for name, value in members:
            writer.write(name, *(npy_chunks(value) if isinstance(value, np.ndarray) else (value,)))
    return out.getvalue()


def listed(**changed: Any) -> dict[str, Any]:
    return {"format": "ovskit.centroids/1", "about": ABOUT, "centroids": [{"name": "a", "metric": "cosine", "objective": 0.25, **changed}]}


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        load_centroids(path)
    said = str(raised.value)
    assert str(path) in said
    assert "\n" not in said
    return said


def same(a: Centroids, b: Centroids) -> bool:
    arrays = np.array_equal(a.rows, b.rows) and np.array_equal(a.counts, b.counts)
    return arrays and a.rows.dtype == b.rows.dtype and (a.metric, a.objective) == (b.metric, b.objective)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    save_centroids(path, NAMED, ABOUT)
    about, named = load_centroids(path)
    assert about == ABOUT
    assert list(named) == list(NAMED)
    assert all(same(named[name], NAMED[name]) for name in NAMED)
    assert path.read_bytes() == written()
    assert load_centroids(str(path))[0] == ABOUT


def test_numpy_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    save_centroids(str(path), NAMED, ABOUT)
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(file["ovs.json"])["format"] == "ovskit.centroids/1"
        assert np.array_equal(file["category/0/rows"], COSINE.rows)
        assert np.array_equal(file["dataset/counts"], EUCLIDEAN.counts)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "ovs.json"
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_path_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="want float32"):
        save_centroids(path, {"a": replace(COSINE, rows=COSINE.rows.astype(np.float64))}, ABOUT)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError):
        save_centroids(tmp_path / "none" / "c.npz", NAMED, ABOUT)


@pytest.mark.parametrize("name", ["", "../x", "/x", "x/", "a/b/c", ".x", "a b", "ä"])
def test_names_that_cannot_be_members(name: str) -> None:
    with pytest.raises(ValueError, match="its name cannot be one"):
        written({name: COSINE})


def test_no_cut_and_no_flip_goes_unnoticed(tmp_path: Path) -> None:
    data, path = written(), tmp_path / "c.npz"
    for end in range(0, len(data), 7):
        refused(path, data[:end])
    refused(path, data + b"\0")
    random = np.random.default_rng(0)
    for place in random.integers(0, len(data), 300):
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.integers(0, 8)
        refused(path, bytes(damaged))


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    foreign = io.BytesIO()
    np.savez(foreign, rows=COSINE.rows)
    pickled = io.BytesIO()
    np.savez(pickled, rows=np.array([{}], object), allow_pickle=True)
    for data in (foreign.getvalue(), pickled.getvalue(), b"\x89PNG\r\n\x1a\n" + b"0" * 50, b'{"a": 1}', b"P"):
        if data != b"P":
            assert "is not a file of centroids; expected centroids, as ovs-cluster --save writes them" in refused(path, data)
    assert "is empty: zero bytes" in refused(path, b"")
    features = io.BytesIO()
    FeatureWriter(features, FeatureHeader(MODEL, None, "float16", "imgs")).finish()
    assert "its format is 'ovskit.features/1'" in refused(path, features.getvalue())
    with pytest.raises(MissingInputError, match="nothing.npz"):
        load_centroids(tmp_path / "nothing.npz")


def test_other_versions_and_nonsense(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    rows, counts = ("a/rows.npy", COSINE.rows), ("a/counts.npy", COSINE.counts)
    path.write_bytes(made(listed(), rows, counts))
    assert same(load_centroids(path)[1]["a"], COSINE)
    for header, says in [
        ({**listed(), "format": "ovskit.centroids/2"}, "'ovskit.centroids/2', this ovskit reads"),
        (b"{", "not valid JSON"),
        ([], "its format is None"),
        ({**listed(), "about": None}, "incomplete"),
        ({**listed(), "centroids": {}}, "incomplete"),
        ({**listed(), "centroids": [{"name": "a"}]}, "without name, metric and objective"),
        ({**listed(), "centroids": listed()["centroids"] * 2}, "twice"),
        ({**listed(), "centroids": []}, "unexpected member 'a/rows.npy'"),
        (listed(name=3), "without a name"),
        (listed(name="b"), "member 'b/rows.npy' is missing (found 'a/rows.npy')"),
        (listed(metric="manhattan"), "metric 'manhattan'"),
        (listed(metric=["cosine"]), "metric ['cosine']"),
        (listed(objective=-1), "objective -1"),
        (listed(objective=True), "objective True"),
        (listed(objective=None), "objective None"),
    ]:
        assert says in refused(path, made(header, rows, counts))
    for wrong, says in [
        (COSINE.rows.astype(np.float16), "rows are float16"),
        (COSINE.rows[0], "rows are float32 (4,)"),
        (COSINE.rows[:, :0], "rows are float32 (2, 0)"),
        (COSINE.rows * np.float32(np.nan), "infinities or NaN"),
        (COSINE.rows * 2, "not of length 1"),
        (COSINE.rows[:1], "counts are int64 (2,)"),
        (b"\x80\x04K\x01.", "not a .npy array"),
    ]:
        assert says in refused(path, made(listed(), ("a/rows.npy", wrong), counts))
    for wrong in (-COSINE.counts, COSINE.counts.astype(np.int32), COSINE.counts[:1]):
        assert "counts are" in refused(path, made(listed(), rows, ("a/counts.npy", wrong)))
    assert "'a/counts.npy' is missing (found 'nothing')" in refused(path, made(listed(), rows))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    assert "never unpickled" in refused(path, made(listed(), ("a/rows.npy", pickled.getvalue()), counts))


def test_centroids_of_another_model_are_refused() -> None:
    check_feature_model(ABOUT, {**MODEL, "name": "timm:vit_small_patch8_224.dino"}, "c.npz")
    for key, other in [("model", "handmade-v1"), ("facet", "query"), ("layer", 3), ("dim", 8), ("weights_sha256", None)]:
        with pytest.raises(InputError, match=f"^c.npz has centroids of other features: their {key} is"):
            check_feature_model(ABOUT, {**MODEL, key: other}, "c.npz")
    for about in ({}, {"model": None}, {"model": {"model": "m"}}):
        with pytest.raises(InputError, match="^c.npz does not say which model"):
            check_feature_model(about, MODEL, "c.npz")
