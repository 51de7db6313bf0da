"""The container of the feature stream: a stored ZIP64 that pipes member by member.

A dialect of PKWARE's APPNOTE 6.3 chosen so that a forward reader needs no seek and two equal inputs give equal bytes:
members are stored, never deflated; every local header carries the CRC-32 and both sizes in a ZIP64 field (no data
descriptors); the timestamp is 1980-01-01 00:00; names are ASCII; no comments, no padding. ``numpy.load`` and
``zipfile`` open the same bytes from disk.

The reader accepts this dialect and nothing else. It re-encodes each header that it parses and compares, and at the end
requires the central directory, ZIP64 record, locator and end record to be exactly those of the members it saw, followed
by the end of the stream: a stream that was cut or changed anywhere never passes for a whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import re
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from ovskit.core.runtime.errors import InputError

try:  # two to four times as fast as most builds of zlib, and the CRC is what limits a pipe (bench/stream.py)
    from isal.isal_zlib import crc32  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from zlib import crc32  # type: ignore[assignment,unused-ignore]

Buffer = bytes | bytearray | memoryview

_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64_LOCAL = struct.Struct("<2H2Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_ZIP64_CENTRAL = struct.Struct("<2H3Q")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")

_VERSION = 45  # the first with ZIP64
_MADE_BY = 3 << 8 | _VERSION  # Unix
# "Names are UTF-8", which ASCII is. zipfile and numpy.savez leave the bit unset for ASCII names, so it also tells our
# stream from theirs at the first header instead of at the last byte.
_FLAGS = 0x0800
_DATE = 1 << 5 | 1  # 1980-01-01, the earliest that ZIP knows
_MODE = 0o100644 << 16
_LATER16, _LATER32 = 0xFFFF, 0xFFFFFFFF  # "see the ZIP64 field"
_NAME = re.compile(rb"[0-9A-Za-z._/-]{1,255}")

# Memory is taken as data arrives, so a header that claims petabytes costs one block.
_BLOCK = 64 << 20
_SCAN_BLOCK = 4 << 20
_PIPE_SIZE = 1 << 20

_AGAIN = "run the stage that wrote it again"
_WANTED = "expected a feature stream, as ovs-extract writes it"
_BY_NAME = " (NumPy's own archives are read by ovs-cluster alone, from files that it is given by name)"


class Member(NamedTuple):
    """One member of the container: its name, CRC-32, size in bytes and where its local header starts."""

    name: str
    crc: int
    size: int
    offset: int


class StoredZipWriter:
    """Writes members one by one to ``out``, which need not seek.

    As a context manager it calls ``finish`` at the end of the block, but not when the block raises: without its
    central directory the stream counts as truncated, which is then what it is. Keeps about 110 bytes per member.

    ``members`` and ``offset`` continue a partial file from what ``scan_complete`` returned for it; the caller has cut
    the file at ``offset`` and moved there.
    """

    def __init__(self, out: BinaryIO, members: Iterable[Member] = (), offset: int = 0) -> None:
        self._out = out
        self._offset = offset
        self._directory = bytearray()
        self._count = 0
        self._open = True
        for member in members:
            self._directory += _central_header(member)
            self._count += 1
        _enlarge_pipe(out)

    def write(self, name: str, *chunks: Buffer) -> None:
        """Write one member whose bytes are ``chunks`` one after the other; none is copied.

        ``name`` holds letters, digits and ``._/-`` and was not used before (not checked). Raises ``ValueError`` for
        another name or after ``finish`` or a failed write, and ``OSError`` as ``out`` does.
        """
        if not self._open:
            raise ValueError("the writer is finished, or a write failed")
        if not _NAME.fullmatch(name.encode()):
            raise ValueError(f"not a member name: {name!r}")
        views = [memoryview(chunk).cast("B") for chunk in chunks]
        crc, size = 0, 0
        for view in views:
            crc = crc32(view, crc)
            size += len(view)
        member = Member(name, crc, size, self._offset)
        header = _local_header(name, crc, size)
        self._open = False  # a write that fails leaves half a member behind, after which nothing may follow
        _write_all(self._out, memoryview(header))
        for view in views:
            _write_all(self._out, view)
        self._open = True
        self._directory += _central_header(member)
        self._count += 1
        self._offset += len(header) + size

    def finish(self) -> None:
        """Write the central directory and end records, and flush ``out``. Raises as ``write`` does."""
        if not self._open:
            raise ValueError("the writer is finished, or a write failed")
        self._open = False
        end = _end_records(self._count, len(self._directory), self._offset)
        _write_all(self._out, memoryview(self._directory))
        _write_all(self._out, memoryview(end))
        self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()


def read_members(stream: BinaryIO, what: str) -> Iterator[tuple[str, memoryview]]:
    """Yield (name, bytes) of each member in the order of the stream, reading forward only; ``what`` names it in errors.

    The bytes are a fresh writable buffer that the consumer may keep (``parse_npy`` views it without a copy); the reader
    holds on to nothing, whatever the number of members. A member's CRC has been checked when it is yielded. Only the
    normal end of the iteration says that the stream is whole.

    Raises ``InputError`` if the stream is empty, truncated, damaged, or anything but our dialect.
    """
    _enlarge_pipe(stream)
    # A digest of the central directory to come, instead of the directory: memory stays flat.
    directory, directory_size, offset, count = hashlib.blake2b(), 0, 0, 0
    while True:
        head = _read_up_to(stream, _LOCAL.size)
        if head[:4] != b"PK\3\4":
            break
        header, member = _read_local_header(stream, head, offset, what)
        data = _read_data(stream, member, what)
        if crc32(data) != member.crc:
            raise InputError(f"{what} is damaged: the CRC of {member.name} does not match its bytes; {_AGAIN}")
        entry = _central_header(member)
        directory.update(entry)
        directory_size += len(entry)
        offset += len(header) + member.size
        count += 1
        yield member.name, data
        del data  # or the consumer's last reference would not free it while the next one is read

    end = _end_records(count, directory_size, offset)
    if not head and not count:
        raise InputError(f"{what} is empty input: zero bytes; {_WANTED} (did the stage before it fail?)")
    if head[:4] != (b"PK\1\2" if count else end[:4]):
        if not count and not b"PK\3\4".startswith(head):
            raise InputError(f"{what} is not a feature stream: it looks like {_looks_like(head)}; {_WANTED}")
        if len(head) < 4:
            raise InputError(f"{what} is truncated: it ends after {_members(count)}, without its central directory; {_AGAIN}")
        raise InputError(f"{what} is damaged: no member and no central directory after {_members(count)}; {_AGAIN}")
    _check_end(stream, head, directory.digest(), directory_size, end, what)


def scan_complete(file: BinaryIO, what: str = "the partial file") -> tuple[list[Member], int]:
    """Find the whole members of a seekable file that a killed writer left: (members, where the last of them ends).

    Reads from the start and checks every CRC; the first member that is cut or damaged and all that follows it count as
    the torn tail, as does a central directory. To go on: truncate and seek to the returned offset, then
    ``StoredZipWriter(file, members, offset)``. An empty file gives ([], 0).

    Raises ``InputError`` if the file does not start as our dialect does, so that no foreign file is ever overwritten.
    """
    members: list[Member] = []
    offset = 0
    start = _local_header("x", 0, 0)[:14]  # signature, version, flags, method, time, date: the same for every member
    file.seek(0)
    buffer = memoryview(bytearray(_SCAN_BLOCK))
    while head := _read_up_to(file, _LOCAL.size):
        if head[:14] != start[: len(head)]:
            # A finished stream without members begins with its end record.
            if members:
                break
            end = _end_records(0, 0, 0)
            if not end.startswith(head + _read_up_to(file, len(end))):
                raise InputError(f"{what} cannot be resumed: it looks like {_looks_like(head)}; {_WANTED}; remove it or write elsewhere")
            break
        try:
            header, member = _read_local_header(file, head, offset, what)
        except InputError:
            break
        crc, left = 0, member.size
        while left and (got := _read_into(file, buffer[: min(left, _SCAN_BLOCK)])):
            crc = crc32(buffer[:got], crc)
            left -= got
        if left or crc != member.crc:
            break
        members.append(member)
        offset += len(header) + member.size
    return members, offset


def read_directory(file: BinaryIO, what: str) -> list[Member]:
    """The members of a seekable file by its central directory alone, which only a finished writer leaves behind.

    What the members hold is not read. Raises ``InputError`` if the file is cut, or not of our dialect.
    """
    tail = len(_end_records(0, 0, 0))
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - tail))
    end = _read_up_to(file, tail)
    if len(end) == tail and end[:4] == b"PK\6\6":
        count, _, directory_size, start = _END64.unpack(end[: _END64.size])[6:]
        if end == _end_records(count, directory_size, start) and start + directory_size + tail == size:
            file.seek(start)
            directory = _read_up_to(file, directory_size)
            members, at = [], 0
            while at + _CENTRAL.size <= len(directory):
                after = at + _CENTRAL.size + _CENTRAL.unpack_from(directory, at)[10]
                if after + _ZIP64_CENTRAL.size > len(directory):
                    break
                _, _, length, _, offset = _ZIP64_CENTRAL.unpack_from(directory, after)
                name = directory[at + _CENTRAL.size : after].decode("ascii", "replace")
                members.append(Member(name, _CENTRAL.unpack_from(directory, at)[7], length, offset))
                at = after + _ZIP64_CENTRAL.size
            if len(members) == count and b"".join(map(_central_header, members)) == directory:
                return members
    raise InputError(f"{what} is not a whole feature stream: its end is missing or damaged; remove it and {_AGAIN}")


def data_start(member: Member) -> int:
    """Where the bytes of a member of a whole stream begin in the file."""
    return member.offset + len(_local_header(member.name, member.crc, member.size))


# The dialect, each record written in one place; readers compare against these bytes.


def _local_header(name: str, crc: int, size: int) -> bytes:
    fixed = _LOCAL.pack(
        b"PK\3\4", _VERSION, _FLAGS, 0, 0, _DATE, crc, _LATER32, _LATER32, len(name), _ZIP64_LOCAL.size
    )  # fmt: skip
    return fixed + name.encode() + _ZIP64_LOCAL.pack(1, 16, size, size)


def _central_header(member: Member) -> bytes:
    name, crc, size, offset = member
    fixed = _CENTRAL.pack(
        b"PK\1\2", _MADE_BY, _VERSION, _FLAGS, 0, 0, _DATE, crc, _LATER32, _LATER32,
        len(name), _ZIP64_CENTRAL.size, 0, 0, 0, _MODE, _LATER32,
    )  # fmt: skip
    return fixed + name.encode() + _ZIP64_CENTRAL.pack(1, 24, size, size, offset)


def _end_records(count: int, directory_size: int, directory_offset: int) -> bytes:
    end64 = _END64.pack(
        b"PK\6\6", _END64.size - 12, _MADE_BY, _VERSION, 0, 0, count, count, directory_size, directory_offset
    )  # fmt: skip
    locator = _LOCATOR.pack(b"PK\6\7", 0, directory_offset + directory_size, 1)
    end = _END.pack(b"PK\5\6", 0, 0, _LATER16, _LATER16, _LATER32, _LATER32, 0)
    return end64 + locator + end


def _read_local_header(stream: BinaryIO, head: bytes, offset: int, what: str) -> tuple[bytes, Member]:
    """Complete the local header that starts with ``head``: its bytes and the member that it announces."""
    first = offset == 0
    if len(head) == _LOCAL.size:
        _, _, flags, method, _, _, crc, _, _, name_size, _ = _LOCAL.unpack(head)
        if first and (flags != _FLAGS or method):
            raise InputError(f"{what} is not a feature stream: it looks like {_foreign_zip(flags, method)}; {_WANTED}{_BY_NAME}")
        head += _read_up_to(stream, name_size + _ZIP64_LOCAL.size)
        if len(head) == _LOCAL.size + name_size + _ZIP64_LOCAL.size:
            name = head[_LOCAL.size : _LOCAL.size + name_size]
            size = _ZIP64_LOCAL.unpack(head[-_ZIP64_LOCAL.size :])[2]
            # Both sizes are in the header, so no single change of a byte makes us wait for data that never comes.
            if _NAME.fullmatch(name) and _local_header(name.decode(), crc, size) == head:
                return head, Member(name.decode(), crc, size, offset)
            problem = "is damaged, or not a feature stream" if first else "is damaged"
            raise InputError(f"{what} {problem}: the member header at byte {offset} is not one that ovs-extract writes; {_AGAIN}")
    raise InputError(f"{what} is truncated: it ends inside the header of a member at byte {offset}; {_AGAIN}")


def _read_data(stream: BinaryIO, member: Member, what: str) -> memoryview:
    # numpy's memory, not a bytearray: it is not cleared first, and Linux backs it with huge pages.
    buffer = np.empty(min(member.size, _BLOCK), np.uint8)
    got = 0
    while got < member.size:
        if got == len(buffer):
            buffer.resize(min(member.size, got + _BLOCK), refcheck=False)
        with buffer.data as whole, whole[got:] as rest:  # released, since an exported array cannot be resized
            arrived = _read_into(stream, rest)
        if not arrived:
            raise InputError(f"{what} is truncated: it ends {got} bytes into the {member.size} of {member.name}; {_AGAIN}")
        got += arrived
    return buffer.data


def _check_end(stream: BinaryIO, head: bytes, digest: bytes, directory_size: int, end: bytes, what: str) -> None:
    """Compare the rest of the stream, after ``head``, with the central directory and end records that belong here."""
    seen = hashlib.blake2b(head[:directory_size])
    left = max(0, directory_size - len(head))
    while left and (chunk := stream.read(min(left, _SCAN_BLOCK))):
        seen.update(chunk)
        left -= len(chunk)
    if left:
        raise InputError(f"{what} is truncated: it ends inside its central directory; {_AGAIN}")
    if seen.digest() != digest:
        raise InputError(f"{what} is damaged: its central directory does not list the members before it; {_AGAIN}")
    tail = head[directory_size:]
    tail += _read_up_to(stream, len(end) - len(tail))
    if tail != end:
        if end.startswith(tail):
            raise InputError(f"{what} is truncated: it ends inside its end records; {_AGAIN}")
        raise InputError(f"{what} is damaged: its end records do not match its members; {_AGAIN}")
    if stream.read(1):
        raise InputError(f"{what} goes on after its end: more bytes follow the last record; pass one feature stream at a time")


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, fewer only at the end of the stream; a raw pipe hands out less than was asked for."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def _read_into(stream: BinaryIO, view: memoryview) -> int:
    return stream.readinto(view)  # type: ignore[attr-defined]  # every binary stream has it but typing.BinaryIO


def _write_all(out: BinaryIO, view: memoryview) -> None:
    while view:
        view = view[out.write(view) :]  # a raw stream may take less than it was given


def _enlarge_pipe(stream: BinaryIO) -> None:
    """Enlarge a pipe's buffer from 64 KiB to 1 MiB where the system allows it: fewer switches between the two stages."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux; not a file, not a pipe, or over the user's limit
        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count} members"


def _foreign_zip(flags: int, method: int) -> str:
    if method:
        return f"a compressed zip (method {method}), such as numpy.savez_compressed writes"
    if flags & 8:
        return "a zip whose sizes come after the data, such as numpy.savez writes to a pipe"
    return "the zip of another program, such as numpy.savez"


def _looks_like(head: bytes) -> str:
    kinds = {
        b"PK": "the zip of another program, or an empty one",
        b"\x93NUMPY": "a single .npy array",
        b"\xff\xd8\xff": "a JPEG image",
        b"\x89PNG": "a PNG image",
        b"\x1f\x8b": "gzip-compressed data",
        b"\x28\xb5\x2f\xfd": "zstd-compressed data",
        b"{": "a JSON document",
        b"[": "a JSON document",
    }
    for magic, kind in kinds.items():
        if head.startswith(magic):
            return kind
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"text that starts with {head[:16].decode()!r}"
    return f"unknown data that starts with the bytes {head[:8].hex(' ')}"
