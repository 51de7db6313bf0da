"""Temporary files for what is read again: all of it comes back, and what does not fit says what to do."""

import io
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ovskit.core.formats.streams.spool import Spool, kept_stdin
from ovskit.core.runtime.errors import OutputError


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may have more than 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("in_memory", [0, 8, 1 << 20])
def test_what_is_written_is_read_as_often_as_asked(in_memory: int) -> None:
    with Spool(in_memory=in_memory) as spool:
        spool.write(b"one ")
        assert spool.from_start().read() == b"one "
        spool.write(b"and another")
        assert [spool.from_start().read() for _ in range(2)] == [b"one and another"] * 2


def test_what_does_not_fit(small_files: None) -> None:
    said = r"^cannot keep margins in \S+: File too large; set TMPDIR to a folder with room$"
    with Spool("keep margins") as spool, pytest.raises(OutputError, match=said):
        spool.write(bytes(1 << 20))
    with Spool(advice="give up") as spool:
        spool.write(bytes((1 << 16) - 10))
        with pytest.raises(OutputError, match=r"^cannot write a temporary file in \S+: File too large; give up$"):
            for _ in range(100):
                spool.write(bytes(1000))
            spool.flush()


def test_no_folder_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="^cannot write a temporary file: No such file or directory; set TMPDIR"):
        Spool()


def test_stdin_is_there_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 5000
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))
    with kept_stdin("features", ".npz") as path:
        assert path.endswith(".npz")
        assert [Path(path).read_bytes() for _ in range(2)] == [data] * 2
    assert not Path(path).exists()


def test_stdin_does_not_fit(small_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(bytes(1 << 20)), isatty=lambda: False))
    with pytest.raises(OutputError, match=r"^cannot keep stdin in \S+\.npz: File too large; set TMPDIR"), kept_stdin("features", ".npz"):
        pass
