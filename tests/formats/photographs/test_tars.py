"""The images of tars: several archives in one file, padding, cuts."""

import io
import logging
import os
import random
import tarfile
from pathlib import Path

import pytest

from ovskit.core.formats.photographs.tars import find_member, tar_index
from ovskit.core.runtime.errors import InputError


def archive(*names: str, blocks: int | None = None, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files that hold their own names; ``blocks`` are the zero blocks at its end, those of a record of 10,240 bytes if None."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name.encode())
            tar.addfile(entry, io.BytesIO(name.encode()))
    data = out.getvalue()
    return data if blocks is None else data[: -(-len(data.rstrip(b"\0")) // 512) * 512] + bytes(512 * blocks)


def names_in(tmp_path: Path, data: bytes) -> list[str]:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tar"
    path.write_bytes(data)
    index = tar_index(str(path))
    for name, offset, length in index.values():
        assert data[offset : offset + length] == name.encode()
    return list(index)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_put_together_are_read_to_the_end(tmp_path: Path, kind: int) -> None:
    long = "d/" * 40 + "2.jpg"
    parts = [archive("1.jpg", "1.txt", kind=kind), archive(long, kind=kind), archive("3.png", kind=kind)]
    assert names_in(tmp_path, b"".join(parts)) == ["1.jpg", long, "3.png"]
    assert names_in(tmp_path, parts[0] + bytes(512 * 41) + parts[1]) == ["1.jpg", long]
    assert names_in(tmp_path, archive() + parts[0] + archive() + parts[2] + archive()) == ["1.jpg", "3.png"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 19])
def test_any_number_of_zero_blocks_stands_between(tmp_path: Path, blocks: int) -> None:
    assert names_in(tmp_path, archive("1.jpg", blocks=blocks) + archive("2.jpg")) == ["1.jpg", "2.jpg"]


def test_a_cut_is_noticed_in_whichever_archive_it_is(tmp_path: Path) -> None:
    first, second = archive("1.jpg", "2.jpg"), archive("3.jpg", "4.jpg", blocks=2)
    for cut in range(len(first) + 100, len(first) + len(second), 100):
        with pytest.raises(InputError, match="tar"):
            names_in(tmp_path, (first + second)[:cut])


def test_what_is_neither_zeros_nor_an_archive_is_damage(tmp_path: Path) -> None:
    for rest in (b"rubbish", b"x" * 512, b"x" * 5120, bytes(100) + archive("2.jpg")):
        with pytest.raises(InputError, match="damaged"):
            names_in(tmp_path, archive("1.jpg") + rest)
    data = bytearray(archive("1.jpg") + archive("2.jpg"))
    data[10_240] ^= 0xFF  # a header whose checksum does not fit, which is passed over by GNU tar too, but not in silence
    with pytest.raises(InputError, match="damaged"):
        names_in(tmp_path, bytes(data))


def test_changed_bytes_are_damage_or_nothing(tmp_path: Path) -> None:
    """Also where the header's checksum fits again, so that sizes, kinds and names are what was written there."""
    chance = random.Random(0)
    whole = [archive("1.jpg", kind=kind) + archive("d/" * 60 + "2.jpg", kind=kind) for kind in range(3)]
    for k in range(300):
        data = bytearray(chance.choice(whole))
        at = chance.randrange(3000) + chance.choice((0, 10_240))
        data[at] = chance.randrange(256)
        start = at // 512 * 512
        header = data[start : start + 512]
        if header[257:262] == b"ustar":
            data[start + 148 : start + 156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
        path = tmp_path / f"{k}.tar"
        path.write_bytes(data)
        try:
            index = tar_index(str(path))
        except InputError:
            continue
        assert all(0 <= member.offset <= member.offset + member.length <= len(data) for member in index.values())


def test_one_name_in_two_archives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two members are named 1.jpg"):
        names_in(tmp_path, archive("1.jpg") + archive("1.jpg"))


def test_empty_ones_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ovskit"):
        assert names_in(tmp_path, archive()) == []
        assert names_in(tmp_path, archive("1.txt")) == []
        assert names_in(tmp_path, archive(".cache/1.jpg", "._2.jpg")) == []
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]


def test_second_names_of_a_file_are_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """GNU tar writes the second of two hard links as a link; folders of symbolic ones are a usual way to choose images."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "1.jpg").write_bytes(b"one")
    os.link(tmp_path / "d" / "1.jpg", tmp_path / "d" / "2.jpg")
    for name, target in (("3.jpg", "2.jpg"), ("e/4.jpg", "../3.jpg"), ("5.jpg", "/nowhere/5.jpg"), ("6.jpg", "7.jpg"), ("7.jpg", "6.jpg")):
        (tmp_path / "d" / name).symlink_to(target)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in sorted((tmp_path / "d").rglob("*.jpg")):
            tar.add(path, path.relative_to(tmp_path))
    data = (tmp_path / "a.tar").read_bytes()
    index = tar_index(str(tmp_path / "a.tar"))
    assert {name: data[at : at + size] for name, at, size in index.values()} == dict.fromkeys(
        ["d/1.jpg", "d/2.jpg", "d/3.jpg", "d/e/4.jpg"], b"one"
    )
    assert "passed over d/5.jpg and 2 more" in caplog.text


def test_no_bytes_are_no_tar(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        names_in(tmp_path, b"")


def test_a_damaged_tar_is_damaged_the_second_time_too(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive("1.jpg")[:600])
    for _ in range(2):
        with pytest.raises(InputError, match="damaged"):
            find_member(str(tmp_path / "a.tar"), "1.jpg")


def test_members_are_found_however_their_letters_are_composed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive("ne\u0301.jpg"))
    found = find_member(str(tmp_path / "a.tar"), "n\u00e9.jpg")
    assert found is not None
    assert found.name == "ne\u0301.jpg"
