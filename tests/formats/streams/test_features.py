import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter, open_features
from ovskit.core.records import EmbeddingBlock, FeatureMap, Image
from ovskit.core.runtime.errors import InputError, UsageError

HEADER = FeatureHeader(model={"model": "m", "stride": 8}, size=(16, 16), dtype="float16", root="imgs", pg=({"id": "ovs-extract"},))


def feature_map(number: int, name: str, h: int = 2, w: int = 3, c: int = 4, *, cls: bool = False, dtype: str = "f2") -> FeatureMap:
    random = np.random.default_rng(number)
    patch = random.normal(size=(h, w, c)).astype(dtype)
    return FeatureMap(Image(number, name, w * 8, h * 8), patch, patch[0, 0] if cls else None)


def stream_of(records: list, header: FeatureHeader = HEADER) -> bytes:
    out = io.BytesIO()
    writer = FeatureWriter(out, header)
    for record in records:
        if isinstance(record, FeatureMap):
            writer.write(record)
        else:
            writer.write(record)
    writer.finish()
    return out.getvalue()


def same(a: FeatureMap, b: FeatureMap) -> bool:
    cls = (a.cls is None) == (b.cls is None) and (a.cls is None or np.array_equal(a.cls, b.cls))
    return a.image == b.image and a.patch.dtype == b.patch.dtype and np.array_equal(a.patch, b.patch) and cls


names = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=12).filter(lambda s: "\0" not in s)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(names, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from(["f2", "f4"])), max_size=5))
def test_what_is_written_is_read_back(items: list) -> None:
    maps = [feature_map(k, name, h, w, cls=cls, dtype=dtype) for k, (name, h, w, cls, dtype) in enumerate(items, 1)]
    data = stream_of(maps)
    header, records = open_features(io.BytesIO(data), "x")
    assert header == HEADER
    assert all(same(a, b) for a, b in zip(records, maps, strict=True))  # type: ignore[arg-type]
    assert stream_of(maps) == data


def test_numpy_opens_the_same_bytes(tmp_path: Path) -> None:
    maps = [feature_map(1, "a.jpg", cls=True), feature_map(2, "b.jpg")]
    path = tmp_path / "f.npz"
    path.write_bytes(stream_of(maps))
    with np.load(path, allow_pickle=False) as file:
        assert next(iter(file)) == "ovs.json"
        assert np.array_equal(file["000000000001/patch"], maps[0].patch)
        assert np.array_equal(file["000000000001/cls"], maps[0].cls)
        assert b'"a.jpg"' in file["000000000001/image.json"]
        assert "000000000002/cls" not in file


def test_pooled_embeddings_come_in_blocks() -> None:
    images = (Image(1, "a", 5, 6), Image(3, "b", 7, 8))
    block = EmbeddingBlock(images, np.arange(8, dtype=np.float32).reshape(2, 4))
    _, records = open_features(io.BytesIO(stream_of([block])), "x")
    (found,) = records
    assert isinstance(found, EmbeddingBlock)
    assert found.images == images
    assert np.array_equal(found.rows, block.rows)


def test_no_cut_and_no_flip_goes_unnoticed() -> None:
    data = stream_of([feature_map(1, "a.jpg", cls=True), feature_map(2, "b.jpg")])
    random = np.random.default_rng(0)

    def read(damaged: bytes) -> None:
        _, records = open_features(io.BytesIO(damaged), "x")
        list(records)

    read(data)
    for cut in {0, 1, len(data) - 1, *random.integers(0, len(data), 200).tolist()}:
        with pytest.raises(InputError):
            read(data[:cut])
    for place in random.integers(0, len(data), 300).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(random.integers(0, 8))
        with pytest.raises(InputError):
            read(bytes(damaged))


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    foreign = io.BytesIO()
    np.savez(foreign, patch=np.zeros(3))
    for data in (foreign.getvalue(), b"", b"hello\n", b'{"info":{}}'):
        with pytest.raises(InputError):
            open_features(io.BytesIO(data), "x")


@pytest.mark.parametrize(
    "record",
    [
        FeatureMap(Image(1, "a", 8, 8), np.zeros((2, 2), np.float16)),
        FeatureMap(Image(1, "a", 8, 8), np.zeros((0, 2, 2), np.float16)),
        FeatureMap(Image(1, "a", 8, 8), np.zeros((2, 2, 2), np.float64)),
        FeatureMap(Image(1, "a", 0, 8), np.zeros((2, 2, 2), np.float16)),
        FeatureMap(Image(1, "a", 8, 8), np.zeros((2, 2, 2), np.float16), np.zeros((1, 2), np.float16)),
        EmbeddingBlock((Image(1, "a", 8, 8),), np.zeros((2, 2), np.float16)),
    ],
)
def test_well_packed_nonsense_is_refused(record: FeatureMap | EmbeddingBlock) -> None:
    _, records = open_features(io.BytesIO(stream_of([record])), "x")
    with pytest.raises(InputError):
        list(records)


@pytest.mark.parametrize("change", [{"format": "ovskit.features/2"}, {"model": 3}, {"size": "big"}, {"pg": None}])
def test_a_header_of_another_kind_is_refused(change: dict) -> None:
    from ovskit.core.formats import jsonbytes

    value = {**jsonbytes.loads(HEADER.to_bytes(), "x"), **change}
    with pytest.raises(InputError):
        FeatureHeader.from_bytes(jsonbytes.dumps(value), "x")


@pytest.mark.parametrize("pooled", [False, True])
def test_a_kill_anywhere_resumes_to_the_same_bytes(pooled: bool) -> None:
    if pooled:
        header = FeatureHeader(model={}, size=None, dtype="float16", root=".", pool="mean")
        records: list = [
            EmbeddingBlock((Image(2 * k, f"{k}a", 8, 8), Image(2 * k + 1, f"{k}b", 8, 8)), np.full((2, 3), k, np.float32))
            for k in (1, 2, 3)
        ]
        ids = [{2 * k, 2 * k + 1} for k in (1, 2, 3)]
    else:
        header = HEADER
        records = [feature_map(k, f"{k}.jpg", cls=k == 2) for k in (1, 2, 3)]
        ids = [{1}, {2}, {3}]
    whole = stream_of(records, header)
    for cut in range(0, len(whole), 13):
        file = io.BytesIO(whole[:cut])
        writer, done = FeatureWriter.resume(file, header, "x.part")
        for record, own in zip(records, ids, strict=True):
            if not own <= done:
                assert not own & done
                writer.write(record)
        writer.finish()
        assert file.getvalue() == whole


def test_another_command_does_not_resume() -> None:
    data = stream_of([feature_map(1, "a.jpg")])
    other = FeatureHeader(model={"model": "other"}, size=None, dtype="float16", root=".")
    with pytest.raises(UsageError, match="other inputs or options"):
        FeatureWriter.resume(io.BytesIO(data), other, "x.part")
