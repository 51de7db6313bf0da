"""The members of an uncompressed tar one by one, with their places in bytes.

Archives that were put together with ``cat`` are read to the end, as GNU tar does with ``--ignore-zeros``: only zeros may stand
between one and the next.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, NamedTuple

from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.errors import InputError, MissingInputError

_BLOCK = 512
_READ = 1 << 20


class Entry(NamedTuple):
    """One file of a tar: its name there without ``./``, its place in bytes, and for a link the name in the tar that it leads to."""

    name: str
    offset: int
    length: int
    target: str | None = None


def walk_tar(path: str) -> Iterator[Entry]:
    """The regular files and links of the tar at ``path`` in its order; folders, devices and the like are passed over.

    Raises InputError where it is damaged, truncated or followed by something else, which may be only after the last member:
    what came before is not to be used then. MissingInputError if it cannot be read.
    """
    what = show_path(path)
    try:
        with open(path, "rb") as file:
            start: int | None = 0
            while start is not None:
                end = yield from _read_archive(file, start, what)
                start = _next_archive(file, end, what)
    except tarfile.TarError:
        raise InputError(f"{what} is not a readable tar: it is truncated, damaged or of another kind; make it again") from None
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None


def is_hidden(name: str) -> bool:
    """Whether a member is hidden, or in a hidden folder: such files are not data (``._a.png``), as ``formats.walk`` has it."""
    return "." in name and any(part.startswith(".") for part in name.split("/"))


def _read_archive(file: BinaryIO, start: int, what: str) -> Generator[Entry, None, int]:
    """The members of the archive that begins at ``start``; returns where its last member ends."""
    end = start
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
        position: Any = archive  # its offset, where it reads on, can be set
        while True:
            # What was read to open it is still to come; global headers concern all members after them.
            if position.firstmember is None and not archive.pax_headers and (plain := _plain_file(file, position.offset)) is not None:
                end = position.offset = plain.offset + -(-plain.length // _BLOCK) * _BLOCK
                yield plain
                continue
            member = archive.next()
            if member is None:
                break
            position.members.clear()  # kept for extraction, a kilobyte each
            if member.size < 0:
                raise InputError(f"{what} is damaged: {show_path(member.name)} is of {member.size} bytes; make it again")
            regular = member.isreg()
            end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if regular else 0)
            name = member.name.removeprefix("./")
            if regular:
                yield Entry(name, member.offset_data, member.size)
            elif member.islnk():
                yield Entry(name, member.offset_data, 0, member.linkname)
            elif member.issym():
                yield Entry(name, member.offset_data, 0, os.path.join(os.path.dirname(name), member.linkname))
    return end


def _plain_file(file: BinaryIO, at: int) -> Entry | None:
    """The regular file whose header is at ``at``, if this is one that needs no other header and that is whole; None leaves it to tarfile.

    Nearly all headers are such, and tarfile takes most of its time for owners, modes and dates.
    """
    header = os.pread(file.fileno(), _BLOCK, at)
    if len(header) < _BLOCK or header[156] not in b"0\0" or header[345] or header[148:149] == b"\0":
        return None
    end = header.find(0, 0, 100)
    name = header[: end if end >= 0 else 100]
    try:
        length, checksum = int(header[124:136].rstrip(b" \0"), 8), int(header[148:156].rstrip(b" \0"), 8)
    except ValueError:  # numbers too large for this notation
        return None
    # Adler-32 begins with the sum of the bytes, plus one, in 16 bits, which hold it for half a block.
    total = (zlib.adler32(header[:256]) & 0xFFFF) + (zlib.adler32(header[256:]) & 0xFFFF) - 2
    if checksum != total - sum(header[148:156]) + 8 * ord(" ") or length < 0 or name.endswith(b"/"):
        return None
    return Entry(name.decode("utf-8", "surrogateescape").removeprefix("./"), at + _BLOCK, length)


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
        raise InputError(
            f"{what} is damaged: what follows the end of the archive, at byte {following}, is not another archive; make it again"
        )
    return following


def _is_header(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    try:
        tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
