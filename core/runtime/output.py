"""Where a command writes: stdout, or a file that appears whole or not at all.

A file is written beside its place and moved there when complete. With ``resume`` the unfinished file has a fixed
name, ``PATH.part``, stays behind when the run is killed, and is handed back to the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ovskit.core.runtime.errors import DiskFullError, MissingInputError, OutputError, UsageError

STDOUT = "-"

_ELSEWHERE = "free some space or write elsewhere with -o"
_RESUME = "free some space, then --resume goes on"


class _CheckedOutput:
    """A binary file whose failed writes become OutputError; a closed pipe stays BrokenPipeError."""

    def __init__(self, file: BinaryIO, name: str, advice: str = _ELSEWHERE) -> None:
        self.file = file
        self.name = name
        self.advice = advice

    def write(self, data: Any) -> int:
        with _write_errors(self.name, self.advice):
            return self.file.write(data)

    def flush(self) -> None:
        with _write_errors(self.name, self.advice):
            self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


class _CheckedFile(_CheckedOutput):
    """The same with what resuming a file needs: reading, and moves, which may have to write first."""

    file: Any

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _write_errors(self.name, self.advice):
            return int(self.file.seek(offset, whence))

    def truncate(self, size: int | None = None) -> int:
        with _write_errors(self.name, self.advice):
            return int(self.file.truncate(size))

    def tell(self) -> int:
        return int(self.file.tell())

    def read(self, size: int = -1) -> bytes:
        return bytes(self.file.read(size))

    def readinto(self, buffer: Any) -> int:
        return int(self.file.readinto(buffer))

    def readline(self, size: int = -1) -> bytes:
        return bytes(self.file.readline(size))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)


def write_error(name: str, error: OSError, advice: str = _ELSEWHERE) -> OutputError:
    """The error to raise for a failed write of ``name``; ``advice`` is for a full disk."""
    failed = f"cannot write {name}: {error.strerror or error}"
    return DiskFullError(failed, advice) if error.errno in (errno.ENOSPC, errno.EDQUOT) else OutputError(failed)


@contextmanager
def _write_errors(name: str, advice: str = _ELSEWHERE) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error(name, error, advice) from None


def part_path(path: str | os.PathLike[str]) -> Path:
    """The name an unfinished ``--resume`` output has: ``PATH.part``."""
    path = Path(path)
    return path.with_name(path.name + ".part")


def check_output(path: str, *, binary: bool, resume: bool = False, pg: bool = True) -> None:
    """Refuse what cannot work before any work is done: binary to a terminal, ``--resume`` on a stream, a missing folder.

    ``pg``: whether provenance is written, by which alone a resumed run recognises its own output.
    """
    if resume and not pg:
        raise UsageError("--resume recognises its own output by the provenance, which --no-pg leaves out: give only one of the two")
    if path == STDOUT:
        if resume:
            raise UsageError("--resume needs a file to resume: add -o PATH")
        if sys.stdout is None:  # started with `>&-`
            raise OutputError("cannot write stdout: it is closed; use -o PATH")
        if binary and sys.stdout.isatty():
            raise UsageError("stdout is a terminal and the output is binary: pipe it into the next command, or use -o PATH")
        return
    parent = Path(path).parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {parent}; create it first")
    if Path(path).is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file name")
    if resume and _is_special(path):
        raise UsageError(f"--resume needs a file to resume, and {path} is not one: add -o PATH")


def same_file(path: str, other: str) -> bool:
    """Whether two paths are one file, existing or not; False for stdin and stdout (``-``) and for devices."""
    if STDOUT in (path, other) or _is_special(path):
        return False
    return os.path.realpath(path) == os.path.realpath(other)


@contextmanager
def open_output(path: str, *, resume: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file to write ``path`` (``-`` is stdout) with.

    An ordinary path is written as a temporary file in the same folder, synced, given the mode the umask asks for and
    moved into place; on any exception it is removed and ``path`` is untouched. A link is followed. Devices and named
    pipes are written directly. With ``resume`` the yielded file is ``PATH.part`` open for reading and writing at its start, with what an
    earlier run left; on an exception the file stays. Raises OutputError if it cannot be written.
    """
    if path == STDOUT:
        out = _CheckedOutput(sys.stdout.buffer, "stdout")
        yield out  # type: ignore[misc]
        out.flush()
        return
    if _is_special(path):
        with _write_errors(path):
            special = open(path, "wb")
        try:
            out = _CheckedOutput(special, path)
            yield out  # type: ignore[misc]
            out.flush()
        finally:
            _close_quietly(special)
        return
    path = os.path.realpath(path)  # a link stays one; what it leads to is replaced
    # The name is settled before the file exists, so that a signal at any moment finds what to remove.
    target = part_path(path) if resume else Path(path).with_name(f".{Path(path).name[:100]}.{secrets.token_hex(4)}.tmp")
    file: BinaryIO | None = None
    advice = _RESUME if resume else _ELSEWHERE
    try:
        with _write_errors(path, advice):
            file = open(target, ("r+b" if target.exists() else "w+b") if resume else "xb")
        if resume:
            _claim(file, str(target))
        checked = (_CheckedFile if resume else _CheckedOutput)(file, path, advice)
        yield checked  # type: ignore[misc]
        checked.flush()
        with _write_errors(path, advice):
            os.fsync(file.fileno())
            file.close()
            os.chmod(target, 0o666 & ~umask())
            os.replace(target, path)
    except BaseException:
        if file is not None:
            _close_quietly(file)
        if not resume:
            target.unlink(missing_ok=True)
        raise


def _claim(file: BinaryIO, name: str) -> None:
    """Two runs that resume one file would write into each other; the second one is refused."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"another run is writing {name}; wait for it to end") from None
    except OSError:  # a file system without locks: go on as without
        pass


def _close_quietly(file: BinaryIO) -> None:
    # The bytes that could not be written are lost already, and the reason is on its way up.
    try:
        file.close()
    except OSError:
        pass


def _is_special(path: str) -> bool:
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True  # /dev/stdout may lead to an ordinary file, which is somebody else's to replace
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def umask() -> int:
    """The umask: the permission bits that new files and folders do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """Yield ``path`` (``-`` is stdin) open for reading bytes. Raises MissingInputError if it cannot be opened."""
    if path == "-":
        if sys.stdin is None:  # started with `<&-`
            raise MissingInputError("cannot read stdin: it is closed; name a file")
        if sys.stdin.isatty():
            raise UsageError("nothing to read: stdin is a terminal; pipe a stream in or name a file (see --help)")
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")
    except OSError as error:
        advice = "raise ulimit -n, or name fewer files" if error.errno == errno.EMFILE else "check the path"
        raise MissingInputError(f"cannot read {path}: {error.strerror}; {advice}") from None
    with file:
        yield file
