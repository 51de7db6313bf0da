"""Streams of JSON lines: a header, a line for each image or pair, and a last line that says how many there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, BinaryIO, Protocol, Self

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.streams.same_run import Header, begun_otherwise, unlike
from ovskit.core.runtime.errors import InputError, UsageError


class LineHeader(Header, Protocol):
    """A header that is a line."""

    def to_line(self) -> bytes: ...


def stated(line: bytes, what: str, form: str, called: str) -> dict[str, Any]:
    """The first line of the stream ``what`` as JSON.

    Raises InputError, which says that it is not ``called``, such as "a curated stream", if it does not state the format ``form``.
    """
    try:
        value = jsonbytes.loads(line, what)
    except InputError:
        value = None
    kind = value.get("format") if isinstance(value, dict) else None
    if kind != form:
        said = "" if kind is None else f"; its format is {kind!r}, this ovskit reads {form!r}"
        raise InputError(f"{what} is not {called}{said}")
    found: dict[str, Any] = value
    return found


class LinesWriter(ABC):
    """Writes a stream line by line; ``finish`` closes it, and without it every reader calls it truncated."""

    def __init__(self, out: BinaryIO, header: LineHeader) -> None:
        self._out, self._count = out, 0
        out.write(header.to_line())

    @classmethod
    @abstractmethod
    def header_of(cls, line: bytes, what: str) -> Header:
        """The header in a first line. Raises InputError."""

    @classmethod
    @abstractmethod
    def id_of(cls, line: bytes, what: str) -> int:
        """The id in another line. Raises InputError for one that is damaged, or the last."""

    @classmethod
    def resume(cls, file: BinaryIO, header: LineHeader, what: str) -> tuple[Self, set[int]]:
        """Continue the unfinished stream in ``file`` (open for reading and writing); returns the ids already there.

        A torn tail is cut off. Raises UsageError if the file was begun with other inputs or options.
        """
        file.seek(0)
        first = file.readline()
        if not first.endswith(b"\n"):
            file.seek(0)
            file.truncate()
            return cls(file, header), set()
        if first != header.to_line():
            raise UsageError(begun_otherwise(what, unlike(cls.header_of(first, what), header)))
        done: set[int] = set()
        end = len(first)
        for line in file:
            try:
                if not line.endswith(b"\n"):
                    break
                done.add(cls.id_of(line, what))
            except InputError:
                break
            end += len(line)
        file.seek(end)
        file.truncate()
        writer = cls.__new__(cls)
        writer._out, writer._count = file, len(done)
        return writer, done

    def append(self, line: bytes) -> None:
        """Append one line, with its end."""
        self._out.write(line)
        self._count += 1

    def finish(self) -> None:
        """Write the line that marks the stream as complete."""
        self._out.write(jsonbytes.dumps({"end": self._count}) + b"\n")
