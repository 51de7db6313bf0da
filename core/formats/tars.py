"""Where the images of an uncompressed tar are, so that each can be read by itself.

Archives that were put together with ``cat`` are read to the end, as GNU tar does with ``--ignore-zeros``: only zeros may stand
between one and the next.
"""

from __future__ import annotations

import os
import tarfile
from typing import BinaryIO, NamedTuple

from ovskit.core.formats.paths import show_path, spellings
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.logs import get_logger

log = get_logger("tars")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
_BLOCK = 512
_READ = 1 << 20


class Member(NamedTuple):
    """One image of a tar: its name there, and its place in bytes."""

    name: str
    offset: int
    length: int


_INDEXES: dict[tuple[str, int, int], dict[str, Member] | InputError] = {}


def tar_index(path: str) -> dict[str, Member]:
    """The images of the tar at ``path`` by name, none if it holds none, which is said on -v (and always, if it holds other files).

    Raises InputError where it is damaged, truncated, followed by something else or names an image twice: nothing of such a tar is
    used [choice], since later stages would have to take the same part of it. MissingInputError if it cannot be read.
    """
    what = show_path(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
    key = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
    if key not in _INDEXES:
        try:
            _INDEXES[key] = _index(path, what)
        except InputError as error:
            _INDEXES[key] = error
    found = _INDEXES[key]
    if isinstance(found, InputError):
        raise InputError(*found.args)
    return found


def find_member(path: str, name: str) -> Member | None:
    """The image ``name`` of the tar at ``path``, whichever way its letters are composed. Raises as ``tar_index``."""
    index = tar_index(path)
    return next((index[spelling] for spelling in spellings(name) if spelling in index), None)


def _index(path: str, what: str) -> dict[str, Member]:
    index: dict[str, Member] = {}
    try:
        others = 0
        with open(path, "rb") as file:
            start: int | None = 0
            while start is not None:
                end, passed = _read_archive(file, start, index, what)
                others += passed
                start = _next_archive(file, end, what)
    except tarfile.TarError:
        raise InputError(f"{what} is no readable tar: it is truncated, damaged or of another kind; make it again") from None
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
    if not index and others:
        log.warning("%s has no images: its files are of other kinds (%d)", what, others)
    elif not index:
        log.info("%s is empty", what)
    return index


def _read_archive(file: BinaryIO, start: int, index: dict[str, Member], what: str) -> tuple[int, int]:
    """Add the images of the archive that begins at ``start``; where its last member ends, and how many files are no images."""
    end, others = start, 0
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
        for member in archive:
            end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
            name = member.name.removeprefix("./")
            if not member.isreg():
                continue
            if not name.lower().endswith(SUFFIXES) or any(part.startswith(".") for part in name.split("/")):
                others += 1
                continue
            if name in index:
                raise InputError(f"{what}: two members are named {show_path(name)}")
            index[name] = Member(name, member.offset_data, member.size)
    return end, others


def _next_archive(file: BinaryIO, end: int, what: str) -> int | None:
    """Where another archive begins after the one whose members end at ``end``; None at the end of the file.

    Raises InputError without the zeros that close an archive: one that was cut between members looks complete to every tool.
    """
    file.seek(end)
    zeros = 0
    while chunk := file.read(_READ):
        left = chunk.lstrip(b"\0")
        zeros += len(chunk) - len(left)
        if left:
            break
    if zeros < (_BLOCK if chunk else 2 * _BLOCK):
        raise InputError(f"{what} is truncated or damaged: an archive in it does not end with its closing blocks; copy it again")
    if not chunk:
        return None
    following = end + zeros // _BLOCK * _BLOCK  # a header begins with a name, which no zero does
    if zeros % _BLOCK or not _is_header(file, following):
        raise InputError(f"{what} is damaged: what follows the end of the archive, at byte {following}, is no other one; make it again")
    return following


def _is_header(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    try:
        tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
