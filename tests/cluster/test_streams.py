"""Several feature streams as one."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ovskit.core.cluster.streams import FeatureInputs
from ovskit.core.formats.streams.features import FeatureHeader, FeatureReader, FeatureWriter
from ovskit.core.records import EmbeddingBlock, FeatureMap, Image
from ovskit.core.runtime.errors import InputError, MissingInputError

HEADER = FeatureHeader({"name": "test"}, None, "float16", "/images", None, [])


def of(number: int, name: str | None = None) -> FeatureMap:
    rng = np.random.default_rng(number)
    cls = rng.normal(size=3).astype(np.float16) if number % 2 else None
    return FeatureMap(Image(number, name or f"{number}.jpg", 8, 8), rng.normal(size=(2, 2, 3)).astype(np.float16), cls)


def save(path: Path, maps: list[FeatureMap]) -> str:
    with path.open("wb") as file:
        writer = FeatureWriter(file, HEADER)
        for one in maps:
            writer.write(one)
        writer.finish()
    return str(path)


def ids(paths: list[str]) -> list[int]:
    with FeatureInputs(paths) as streams:
        found = []
        for record in streams.records():
            expected = of(record.features.image.id)
            assert np.array_equal(record.features.patch, expected.patch)
            assert record.root == "/images"
            found.append(expected.image.id)
        return found


def test_shards_are_read_in_step(tmp_path: Path) -> None:
    shards = [
        save(tmp_path / f"{k}.npz", [of(number) for number in numbers]) for k, numbers in enumerate([[2, 5, 8], [], [1, 4], [3, 6, 7]])
    ]
    assert ids(shards) == ids(shards[::-1]) == list(range(1, 9))
    # One that is not in order stays as it is.
    assert ids([save(tmp_path / "odd.npz", [of(9), of(1), of(4)]), shards[0]]) == [2, 5, 8, 9, 1, 4]


def test_an_image_that_two_have_is_named(tmp_path: Path) -> None:
    first = save(tmp_path / "a.npz", [of(1), of(3)])
    for second, what in (([of(2), of(3)], "image 3"), ([of(2, "1.jpg")], r"image 2 \(1\.jpg\)")):
        with (
            pytest.raises(InputError, match=rf"b\.npz: {what}.* twice"),
            FeatureInputs([first, save(tmp_path / "b.npz", second)]) as streams,
        ):
            list(streams.records())


def test_more_shards_than_a_process_may_open_at_first(tmp_path: Path, few_files: int) -> None:
    shards = [save(tmp_path / f"{k}.npz", [of(k)]) for k in range(1, few_files + 20)]
    assert ids(shards) == list(range(1, few_files + 20))


def test_more_than_the_system_allows_is_said(tmp_path: Path, few_files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [save(tmp_path / f"{k}.npz", [of(k)]) for k in range(1, few_files + 20)]
    monkeypatch.setattr("ovskit.core.cluster.streams.allow_open_files", lambda count: None)
    with pytest.raises(MissingInputError, match=r"Too many open files.*ulimit -n"):
        FeatureInputs(shards)
    assert ids(shards[:5]) == [1, 2, 3, 4, 5]  # those that were open are closed again


@pytest.fixture
def few_files() -> Iterator[int]:
    """How many files this process may have open, for now: hardly more than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = len(list(Path("/proc/self/fd").iterdir())) + 30 if Path("/proc/self/fd").is_dir() else 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_who_is_next_is_known_before_the_arrays() -> None:
    out = io.BytesIO()
    writer = FeatureWriter(out, HEADER)
    writer.write(of(1))
    writer.write(of(2))
    data = out.getvalue()
    reader = FeatureReader(io.BytesIO(data[: data.index(b"000000000002/patch")]), "x")
    assert reader.peek() == reader.peek() == (of(1).image,)
    first = reader.take()
    assert isinstance(first, FeatureMap)
    assert first.cls is not None
    assert reader.peek() == (of(2).image,)
    with pytest.raises(InputError, match="x is"):
        reader.take()


def test_a_block_of_embeddings_says_who_it_is_of() -> None:
    out = io.BytesIO()
    writer = FeatureWriter(out, HEADER)
    images = (of(1).image, of(2).image)
    writer.write(EmbeddingBlock(images, np.ones((2, 3), np.float32)))
    writer.finish()
    reader = FeatureReader(io.BytesIO(out.getvalue()), "x")
    assert reader.peek() == images
    assert isinstance(reader.take(), EmbeddingBlock)
    assert reader.peek() == ()
