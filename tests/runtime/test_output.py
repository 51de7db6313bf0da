import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ovskit.core.runtime.errors import DiskFullError, MissingInputError, OutputError, UsageError
from ovskit.core.runtime.output import check_output, open_input, open_output, part_path


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with open_output(str(target)) as out:
        out.write(b"one")
        assert not target.exists()
        out.write(b"two")
    assert target.read_bytes() == b"onetwo"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with open_output(str(tmp_path / "out")) as out:
            out.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_failed_write(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(error), open_output(str(target)) as out:
        out.write(b"new")
        raise error
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def test_resume_keeps_the_part_and_hands_it_back(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), open_output(str(target), resume=True) as out:
        out.write(b"half")
        raise RuntimeError
    assert not target.exists()
    assert part_path(target).read_bytes() == b"half"
    with open_output(str(target), resume=True) as out:
        assert out.read() == b"half"
        out.write(b" and half")
    assert target.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["out"]


def test_two_runs_do_not_resume_one_file(tmp_path: Path) -> None:
    target = str(tmp_path / "out")
    with open_output(target, resume=True) as out:
        out.write(b"ours")
        with pytest.raises(OutputError, match="another run"), open_output(target, resume=True):
            pass
    assert (tmp_path / "out").read_bytes() == b"ours"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="No space left"), open_output("/dev/full") as out:
        out.write(b"x" * 100_000)


def test_a_missing_folder_and_a_folder_are_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        check_output(str(tmp_path / "no" / "out"), binary=True)
    with pytest.raises(OutputError, match="is a folder"):
        check_output(str(tmp_path), binary=True)


def test_a_stream_cannot_be_resumed() -> None:
    for path in ("-", "/dev/null"):
        with pytest.raises(UsageError, match="-o PATH"):
            check_output(path, binary=False, resume=True)


def test_nothing_is_resumed_without_provenance(tmp_path: Path) -> None:
    check_output(str(tmp_path / "out"), binary=False, resume=True)
    check_output(str(tmp_path / "out"), binary=False, pg=False)
    with pytest.raises(UsageError, match="--no-pg"):
        check_output(str(tmp_path / "out"), binary=False, resume=True, pg=False)


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_cannot_grow_is_named(tmp_path: Path, resume: bool) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with (
            pytest.raises(OutputError, match=r"cannot write .*out\.bin: File too large"),
            open_output(str(tmp_path / "out.bin"), resume=resume) as out,
        ):
            out.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("resume", "words"), [(False, "write elsewhere with -o"), (True, "then --resume goes on")])
def test_what_to_do_about_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool, words: str) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = f"cannot write {tmp_path / 'out'}: No space left on device"
    with pytest.raises(DiskFullError, match=f"{said}; free some space.*{words}"), open_output(str(tmp_path / "out"), resume=resume) as out:
        out.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["out.part"] * resume


def test_a_resumed_file_is_one_to_move_in(tmp_path: Path) -> None:
    part_path(tmp_path / "out").write_bytes(b"one\ntwo\nthree")
    with open_output(str(tmp_path / "out"), resume=True) as out:
        assert out.readline() == b"one\n"
        assert list(out) == [b"two\n", b"three"]
        assert out.seek(-5, os.SEEK_END) == 8
        buffer = bytearray(3)
        assert out.readinto(buffer) == 3  # type: ignore[attr-defined]
        assert (bytes(buffer), out.tell(), out.read()) == (b"thr", 11, b"ee")
        assert out.seek(4) == out.truncate() == 4
        out.write(b"2\n")
    assert (tmp_path / "out").read_bytes() == b"one\n2\n"


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="absent"), open_input(str(tmp_path / "absent")):
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with open_output(str(link)) as out:
        out.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.rglob("*.json")) == ["link.json", "real.json"]


def test_stdout_by_its_path_is_written_not_replaced(tmp_path: Path) -> None:
    code = "from ovskit.core.runtime.output import open_output\nwith open_output('/dev/stdout') as out: out.write(b'new')"
    with (tmp_path / "kept").open("wb") as file:
        before = os.stat(file.fileno()).st_ino
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "kept").read_bytes() == b"new"
    assert (tmp_path / "kept").stat().st_ino == before
    assert os.path.islink("/dev/stdout")
