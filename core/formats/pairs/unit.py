"""What pairs are read from one at a time: a tar, or a file that lists images and captions."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from io import FileIO
from typing import NamedTuple

import numpy as np

from ovskit.core.formats.pairs.captions import LeftOutError
from ovskit.core.formats.pairs.packed import Int64, Packed
from ovskit.core.formats.pairs.record import Pair, key_of, to_bytes, to_text
from ovskit.core.formats.pairs.sidecar import Sidecars
from ovskit.core.formats.pairs.tar_contents import TarContents, captions_from, read_tar_contents
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.runtime.errors import InputError, MissingInputError


class Bounds(NamedTuple):
    """The keys of a unit are not below ``lower``, and below ``upper``, if there is one."""

    lower: bytes
    upper: bytes | None


class Opened(ABC):
    """A unit whose index is in memory. ``keys`` are ascending and what follows the unit's prefix; ``left_out`` is counted by reason."""

    keys: Packed
    left_out: Mapping[str, int]

    @abstractmethod
    def pairs(self, rows: Int64) -> list[Pair]:
        """The pairs at ``rows``, places among the keys, in that order; the file is read from front to back. Raises InputError for a file
        that has changed, MissingInputError for one that cannot be read."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class Unit(ABC):
    """A unit by its ``path``; ``prefix`` is what all its keys begin with and its index leaves out; ``kind`` is a word for it."""

    path: str
    prefix: bytes
    bounds: Bounds
    kind: str

    @abstractmethod
    def open(self) -> Opened:
        """Get its index into memory. Raises InputError or MissingInputError for a unit that cannot be used."""


class TarUnit(Unit):
    """The tar at ``path``, which is called ``name`` relative to ``root``."""

    kind = "tar"

    def __init__(self, path: str, name: str, root: str, sidecars: Sidecars) -> None:
        self.path = path
        self._sidecars = sidecars
        self._folder = "" if name == "." else f"{name}/"
        prefix = to_bytes(key_of(f"{self._folder}x", root))
        if prefix is None:
            raise MissingInputError(f"cannot read {show_path(path)}: not a possible file name")
        self.prefix = prefix[:-1]
        self.bounds = Bounds(self.prefix, self.prefix[:-1] + b"0")  # which is after "/"
        self._state: tuple[int, int] | None = None

    def open(self) -> Opened:
        what = show_path(self.path)
        try:
            file = open(self.path, "rb", buffering=0)  # of which places are read, never the next bytes
        except OSError as error:
            raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
        with ExitStack() as stack:
            stack.enter_context(file)
            status = os.fstat(file.fileno())
            state = (status.st_size, status.st_mtime_ns)
            if self._state not in (None, state):
                raise InputError(f"{what} was changed since this run began; run it again")
            self._state = state
            contents = self._sidecars.load(self.path, status)
            if contents is None:
                contents = read_tar_contents(self.path)
                self._sidecars.save(self.path, contents, status)
            stack.pop_all()  # it stays open
        return _OpenTar(self, contents, file, self._folder)


class _OpenTar(Opened):
    def __init__(self, unit: TarUnit, contents: TarContents, file: FileIO, folder: str) -> None:
        self.keys = contents.keys
        self.left_out = contents.left_out
        self._contents = contents
        self._file = file
        self._folder = folder
        self._path = unit.path
        self._prefix = to_text(unit.prefix)
        self._what = show_path(unit.path)

    def pairs(self, rows: Int64) -> list[Pair]:
        c = self._contents
        firsts, counts, parts = spans(c.first_part, rows)
        offsets, lengths = c.part_offset[parts].tolist(), c.part_length[parts].tolist()
        suffixes = [c.suffixes[k] for k in c.part_suffix[parts].tolist()]
        read = [b""] * len(parts)
        for k in np.argsort(c.part_offset[parts], kind="stable").tolist():
            read[k] = self._read(offsets[k], lengths[k])
        columns = (rows, firsts, counts, c.image_suffix[rows], c.image_offset[rows], c.image_length[rows])
        found = []
        for row, first, count, suffix, offset, length in zip(*(column.tolist() for column in columns), strict=True):
            stem = to_text(c.keys[row])
            name = f"{self._folder}{stem}{c.suffixes[suffix]}"
            where = f"{self._what}: {show_path(stem + suffixes[first])}"
            try:
                captions = captions_from(zip(suffixes[first : first + count], read[first : first + count], strict=True))
            except LeftOutError:
                raise InputError(f"{where} was changed since it was indexed; run this again") from None
            found.append(Pair(self._prefix + stem, name, captions, where, Source(0, name, self._path, offset, length)))
        return found

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise MissingInputError(f"cannot read {self._what}: {error.strerror}") from None
        if len(data) != length:
            raise InputError(f"{self._what} was cut while it was read; run this again when it is complete")
        return data

    def close(self) -> None:
        self._file.close()


class NothingOpened(Opened):
    """What a unit that cannot be used has."""

    def __init__(self) -> None:
        self.keys = Packed.of([])
        self.left_out = {}

    def pairs(self, rows: Int64) -> list[Pair]:
        return []

    def close(self) -> None: ...


def spans(starts: Int64, rows: Int64) -> tuple[Int64, Int64, Int64]:
    """The parts of ``rows``, one row's behind the other's; row k's are ``starts[k]`` to ``starts[k + 1]``.

    Returns where each row's begin among them, how many they are, each int64 (len(rows),), and which parts they are, int64 (all of them,).
    """
    counts = starts[rows + 1] - starts[rows]
    firsts = np.cumsum(counts) - counts
    return firsts, counts, np.repeat(starts[rows] - firsts, counts) + np.arange(int(counts.sum()))
