"""The members of tars, against Python's own reader of tars."""

import io
import os
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.photographs.tar_walk import Entry, is_hidden, walk_tar
from ovskit.core.runtime.errors import InputError

names = st.text("ab./é\udcff ", min_size=1, max_size=6) | st.text("long/", min_size=95, max_size=180)
files = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE]
kinds = st.sampled_from([*files, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


def written(members: list[tuple[str, bytes, bytes]], form: int, headers: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers=headers, errors="surrogateescape") as tar:
        for name, kind, data in members:
            entry = tarfile.TarInfo(name)
            if kind == tarfile.AREGTYPE and len(os.fsencode(name)) > 99:
                kind = tarfile.REGTYPE  # old archives have no longer names; one cut after a slash would pass for a folder
            entry.type, entry.linkname = kind, "a" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            entry.mtime = 1e9 + 0.5
            entry.size = len(data) if entry.isreg() and not name.endswith("/") else 0  # the oldest kind of folder
            try:
                tar.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
            except ValueError:  # a name too long for this form
                continue
    return out.getvalue()


def as_python_reads(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path, "r:", errors="surrogateescape") as tar:
        return [(m.name.removeprefix("./"), m.offset_data, m.size if m.isreg() else 0) for m in tar if m.isreg() or m.islnk() or m.issym()]


@given(
    st.lists(st.tuples(names, kinds, st.binary(max_size=3) | st.just(b"x" * 512) | st.just(b"y" * 700)), min_size=1, max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
    st.sampled_from([{}, {"comment": "of all"}, {"path": "all.jpg"}]),
)
def test_members_are_those_that_python_reads(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, bytes]], form: int, headers: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(written(members, form, headers))
    assert [entry[:3] for entry in walk_tar(str(path))] == as_python_reads(path)


def test_damage_is_found_where_python_finds_it(tmp_path: Path) -> None:
    """Any byte of a header changed, and any cut: either both read the same or this refuses; never are there other members."""
    chance = random.Random(0)
    whole = written([(f"{k}.jpg", tarfile.REGTYPE, b"x" * 300 * k) for k in range(4)], tarfile.GNU_FORMAT, {})
    starts = [entry.offset - 512 for entry in walk(tmp_path / "whole.tar", whole)]
    refused = 0
    for k in range(400):
        data = bytearray(whole)
        if k % 4:
            data[chance.choice(starts) + chance.randrange(512)] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(512, len(whole.rstrip(b"\0")) + 512) :]
        try:
            found = walk(tmp_path / "a.tar", bytes(data))
        except InputError:
            refused += 1
            continue
        assert [entry[:3] for entry in found] == as_python_reads(tmp_path / "a.tar")
    assert refused > 300  # all but bytes that the checksum stands for twice


def walk(path: Path, data: bytes) -> list[Entry]:
    path.write_bytes(data)
    return list(walk_tar(str(path)))


def test_large_members_and_far_places(tmp_path: Path) -> None:
    """Sizes of more than eight octal digits, and in base 256; the file has holes."""
    sizes = {"a.jpg": 5, "b.jpg": 3 << 30, "c.jpg": 9 << 30, "d.jpg": 7}
    with open(tmp_path / "a.tar", "wb") as file:
        for name, size in sizes.items():
            entry = tarfile.TarInfo(name)
            entry.size = size
            file.write(entry.tobuf(tarfile.GNU_FORMAT))
            file.seek(-(-size // 512) * 512, io.SEEK_CUR)
        file.write(bytes(1024))
    found = list(walk_tar(str(tmp_path / "a.tar")))
    assert {entry.name: entry.length for entry in found} == sizes
    assert [entry[:3] for entry in found] == as_python_reads(tmp_path / "a.tar")


def test_hidden_members() -> None:
    assert all(map(is_hidden, (".a", "a/.b", "a/._b.jpg", "../a", ".a/b")))
    assert not any(map(is_hidden, ("a", "a.b", "a./b", "a/b.jpg")))
