"""The index of a tar: used, remade when it must be, never trusted."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from ovskit.core.formats.pairs import unit
from ovskit.core.formats.pairs.sidecar import Sidecars
from ovskit.core.formats.pairs.tar_contents import TarContents, read_tar_contents
from tests.formats.pairs.shards import pairs, said, sample, shard, tar_bytes, write_tar


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tars that were walked through."""
    paths: list[str] = []

    def spy(path: str) -> TarContents:
        paths.append(os.path.basename(path))
        return read_tar_contents(path)

    monkeypatch.setattr(unit, "read_tar_contents", spy)
    return paths


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes with the same size and time."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def only(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "index").iterdir()
    return found


def test_a_tar_is_walked_through_once(tmp_path: Path, walked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3):
        write_tar(tmp_path / "x" / f"{k}.tar", shard(k, 2))
    for _ in range(3):
        found = pairs(tmp_path, tmp_path / "x", open_units=1)
        assert found.count() == 6
        assert len(list(found.read())) == 6
    assert walked == ["0.tar", "1.tar", "2.tar"]
    monkeypatch.chdir(tmp_path)
    assert pairs(tmp_path, "x/0.tar").count() == 2  # the same tar by another path
    assert len(walked) == 3


def test_headers_are_not_read_again(tmp_path: Path) -> None:
    """All that is not an image or a caption is overwritten."""
    path = write_tar(tmp_path / "t.tar", sample("a", "first", "second") + sample("b", "third"))
    before = list(pairs(tmp_path, path).read())
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    contents = read_tar_contents(str(path))
    kept = np.zeros(len(data), bool)
    places = ((contents.image_offset, contents.image_length), (contents.part_offset, contents.part_length))
    for offset, length in ((o, n) for offsets, lengths in places for o, n in zip(offsets.tolist(), lengths.tolist(), strict=True)):
        kept[offset : offset + length] = True
    rewrite(path, np.where(kept, data, 0x55).astype(np.uint8).tobytes())
    assert list(pairs(tmp_path, path).read()) == before


def test_an_index_is_for_one_state_of_a_tar(tmp_path: Path, walked: list[str]) -> None:
    path = write_tar(tmp_path / "t.tar", sample("a", "one"))
    assert said(pairs(tmp_path, path).read()) == {"t/a": ("one",)}
    stamp = path.stat()
    rewrite(path, tar_bytes(sample("a", "two")))
    assert said(pairs(tmp_path, path).read()) == {"t/a": ("two",)}  # captions are not in the index
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert said(pairs(tmp_path, path).read()) == {"t/a": ("two",)}
    assert len(walked) == 2
    path.write_bytes(tar_bytes(sample("b", "three")) + tar_bytes(sample("c", "four")))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert said(pairs(tmp_path, path).read()) == {"t/b": ("three",), "t/c": ("four",)}
    assert len(walked) == 3


def test_a_damaged_index_is_made_again(tmp_path: Path, walked: list[str]) -> None:
    path = write_tar(tmp_path / "t.tar", [*shard(0, 5), ("lone.jpg", b"")])
    expected = list(pairs(tmp_path, path).read())
    place = only(tmp_path)
    good = place.read_bytes()
    chance = random.Random(0)
    damaged = [b"", b"\n", good[:-1], good[: len(good) // 2], good + b"x", b"null\n" + good]
    for _ in range(20):
        bad = bytearray(good)
        bad[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(bad))
    for k, data in enumerate(damaged, 2):
        place.write_bytes(data)
        assert list(pairs(tmp_path, path).read()) == expected
        assert len(walked) == k
        assert place.read_bytes() == good
    assert pairs(tmp_path, path).left_out == {}
    assert len(walked) == len(damaged) + 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_offset", 10**9), ("image_offset", -5), ("image_length", 10**9), ("image_length", -1), ("image_suffix", 9),
        ("image_suffix", 1), ("part_offset", -1), ("part_length", 1 << 62), ("part_suffix", 0), ("part_suffix", 200),
    ],
)  # fmt: skip
def test_bounds_are_checked_even_where_the_checksum_fits(tmp_path: Path, column: str, value: int) -> None:
    path = str(write_tar(tmp_path / "t.tar", shard(0, 5)))
    status = os.stat(path)
    kept = Sidecars(str(tmp_path / "index"))
    contents = read_tar_contents(path)
    kept.save(path, contents, status)
    assert kept.load(path, status) is not None
    getattr(contents, column)[2] = value
    kept.save(path, contents, status)
    assert kept.load(path, status) is None


def test_keys_must_ascend_and_counts_fit(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "t.tar", shard(0, 5)))
    status = os.stat(path)
    kept = Sidecars(str(tmp_path / "index"))
    for k in range(3):
        contents = read_tar_contents(path)
        if k == 0:
            contents.keys.blob = bytes(contents.keys.blob)[::-1]
        elif k == 1:
            contents.first_part[1:] = [1, 1, 3, 4, 5]
        else:
            object.__setattr__(contents, "left_out", {"because": 3})
        kept.save(path, contents, status)
        assert kept.load(path, status) is None


def test_what_is_kept_is_what_was_read(tmp_path: Path) -> None:
    members = [
        *shard(0, 40),
        *sample("\udcff/x", "many", "captions"),
        ("lone.jpg", b""),
        ("e.JPEG", b""),
        ("e.txt", b"1"),
        ("e.json", b'{"text":"2"}'),
    ]
    for k, chosen in enumerate((members, [], [("a.txt", b"x")])):
        path = str(write_tar(tmp_path / f"{k}.tar", chosen))
        kept = Sidecars(str(tmp_path / "index"))
        first = read_tar_contents(path)
        kept.save(path, first, os.stat(path))
        second = kept.load(path, os.stat(path))
        assert second is not None
        assert list(first.keys) == list(second.keys)
        assert (first.suffixes, first.left_out) == (second.suffixes, second.left_out)
        for name in ("image_suffix", "image_offset", "image_length", "first_part", "part_suffix", "part_offset", "part_length"):
            assert np.array_equal(getattr(first, name), getattr(second, name)), name
            assert getattr(first, name).dtype == getattr(second, name).dtype, name


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, walked: list[str]) -> None:
    for k in range(3):
        write_tar(tmp_path / "x" / f"{k}.tar", shard(0, 2))
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        caplog.clear()
        assert pairs(tmp_path, tmp_path / "x", index_folder=str(tmp_path / "file" / "index")).count() == 6
        assert [record.levelname for record in caplog.records if "are not kept" in record.getMessage()] == ["WARNING"]
    assert len(walked) == 6
    assert not list((tmp_path / "x").glob("*.pairs*"))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert pairs(tmp_path, write_tar(tmp_path / "t.tar", shard(0, 2))).count() == 2
    assert "No space left" in caplog.text
    assert list((tmp_path / "index").iterdir()) == []


def test_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "t.tar", shard(0, 2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert pairs(tmp_path, path, index_folder=None).count() == 2
    assert len(list((tmp_path / "cache" / "ovskit" / "pairs").iterdir())) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert pairs(tmp_path, path, index_folder=None).count() == 2
    assert len(list((tmp_path / "home" / ".cache" / "ovskit" / "pairs").iterdir())) == 1
