"""Pairs from TSV and CSV files as CC3M and CC12M have them: a caption and an address a row, and the images in a folder beside."""

from __future__ import annotations

import csv
import os
import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.pairs.captions import Left, LeftOutError, is_utf8
from ovskit.core.formats.pairs.listing import PEEK, Listing, Rows
from ovskit.core.formats.pairs.packed import Int64, Packed
from ovskit.core.formats.pairs.record import to_bytes, to_text
from ovskit.core.formats.photographs.tars import SUFFIXES
from ovskit.core.formats.walk import files_below
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

COLUMNS = ("auto", "caption,image", "image,caption")
_CAPTIONS = {"caption", "captions", "text", "title", "txt"}
_IMAGES = {"url", "image_url", "image", "image_path", "img", "file_name", "filename", "file", "filepath", "path"}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_NONE, _SEVERAL = -1, -2
_ADDRESS = 1  # which of the ways this is


class Row(NamedTuple):
    """A row of a table: its bytes in the file, its line from 1, its cells."""

    offset: int
    length: int
    line: int
    cells: list[str]


class Table(Listing):
    """A TSV or CSV file; ``columns`` is one of ``COLUMNS`` and says which of the first two is what.

    ``auto`` goes by the first row if it names the columns, else takes the one that holds addresses or files below the folder of
    images for the images'. Tabs separate cells if the first line has one, else commas. With tabs a row is a line, and quotes are
    taken off only around a whole cell; with commas cells are quoted as usual and may go over several lines.

    The images are those below ``root``, else the first of the folders ``<name of the table>/`` and ``images/`` beside the table that
    is there, else its own. A row's image is found by one of three ways, the one that finds most of the table's [choice]: by its path, by
    the last part of its address, or by the number of its row, from 0 and without the row of names, padded with any zeros. Rows without
    an image are left out, since downloads fail.
    """

    def __init__(self, path: str, columns: str = "auto") -> None:
        super().__init__(path)
        if columns not in COLUMNS:
            raise UsageError(f"--columns {columns}: choose from {' '.join(COLUMNS)}")
        self._columns = columns
        self._delimiter = "\t"
        self._caption = self._image = 0
        self._folder = self.base

    def choose_base(self, root: str | None) -> None:
        if root is not None:
            self.base = self._folder = os.path.normpath(root)
            return
        beside = (os.path.join(self.base, name) for name in (os.path.splitext(os.path.basename(self.path))[0], "images"))
        self._folder = next((folder for folder in beside if os.path.isdir(folder)), self.base)

    def first_names(self) -> list[str]:
        return []

    def rows(self) -> Rows:
        skipped = self._understand()
        places, cells = (array("q"), array("q"), array("q")), array("q")
        usable, reasons = array("b"), Counter[str]()
        images = _Folder(self._folder, self.base)
        ways = (array("q"), array("q"), array("q"))
        for number, row in enumerate(self._rows(skipped)):
            for column, value in zip(places, row[:3], strict=True):
                column.append(value)
            cell = row.cells[self._image].strip() if self._image < len(row.cells) else ""
            cells.append(hash(cell))
            for way, found in zip(ways, images.ways(cell, number), strict=True):
                way.append(found)
            try:
                self._texts(row.cells)
                usable.append(True)
            except LeftOutError as left:
                reasons[left.why] += 1
                usable.append(False)
        rows = Rows()
        rows.left_out.update(reasons)
        chosen = _chosen([np.array(way, np.int64) for way in ways], np.array(cells, np.int64))
        for place, offset, length, line, good in zip(chosen.tolist(), *places, usable, strict=True):
            if not good:
                continue
            if place < 0:
                rows.left_out[Left.NO_IMAGE if place == _NONE else Left.UNCLEAR] += 1
                continue
            name = self.name_of(to_text(images.names[place]))
            if name is None:
                rows.left_out[Left.NO_IMAGE] += 1
            else:
                rows.add(name, offset, length, line)
        return rows

    def captions(self, file: BinaryIO | None, offset: int, length: int) -> Sequence[str]:
        assert file is not None
        try:
            row = next(self._parsed(iter([os.pread(file.fileno(), length, offset)]), offset), None)
        except csv.Error:
            row = None
        return () if row is None else self._texts(row.cells)

    def _texts(self, cells: list[str]) -> tuple[str, ...]:
        """The caption of a row. Raises LeftOutError."""
        if self._caption >= len(cells):
            raise LeftOutError(Left.ALONE)
        text = cells[self._caption].strip()
        if not text:
            raise LeftOutError(Left.BLANK)
        if not is_utf8(text):  # other bytes were carried as surrogates
            raise LeftOutError(Left.UNDECODABLE)
        return (text,)

    def _rows(self, skipped: int) -> Iterator[Row]:
        """All rows after the first ``skipped``."""
        try:
            with open(self.path, "rb") as file:
                for k, row in enumerate(self._parsed(iter(file), 0)):
                    if k >= skipped:
                        yield row
        except OSError as error:
            raise MissingInputError(f"cannot read {self.what}: {error.strerror}") from None
        except csv.Error as error:
            raise InputError(f"{self.what} is not a readable table: {error}") from None

    def _parsed(self, lines: Iterator[bytes], offset: int) -> Iterator[Row]:
        """The rows in lines of the file, of which the first is at ``offset``; empty ones are passed over."""
        taken, number, mark = offset, 0, 0

        def decoded() -> Iterator[str]:
            nonlocal taken, number, mark
            for line in lines:
                bare = jsonbytes.without_mark(line) if taken == 0 else line
                mark = mark or len(line) - len(bare)
                taken += len(line)
                number += 1
                yield bare.decode("utf-8", "surrogateescape")

        texts = decoded()
        start, line = offset, 1
        rows = csv.reader(texts) if self._delimiter == "," else ([*map(_unquoted, text.rstrip("\r\n").split("\t"))] for text in texts)
        for cells in rows:
            if any(cells):
                first = mark if start == 0 else start
                yield Row(first, taken - first, line, cells)
            start, line = taken, number + 1

    def _understand(self) -> int:
        """Find out what separates cells and which column is what; returns how many rows come before the first with data."""
        try:
            with open(self.path, "rb") as file:
                self._delimiter = "\t" if b"\t" in file.readline(1 << 20) else ","
        except OSError as error:
            raise MissingInputError(f"cannot read {self.what}: {error.strerror}") from None
        first = [row.cells for _, row in zip(range(5 * PEEK), self._rows(0), strict=False)]
        if not first:
            return 0
        words = [cell.strip().lower() for cell in first[0]]
        caption, image = (next((k for k, word in enumerate(words) if word in known), None) for known in (_CAPTIONS, _IMAGES))
        titled = caption is not None and image is not None
        if self._columns != "auto":
            self._caption, self._image = (0, 1) if self._columns == "caption,image" else (1, 0)
        elif caption is not None and image is not None:
            self._caption, self._image = caption, image
        else:
            self._image = self._images_column(first)
            self._caption = 1 if self._image == 0 else 0
        return int(titled)

    def _images_column(self, rows: list[list[str]]) -> int:
        votes: Counter[int] = Counter()
        for cells in rows:
            votes.update(k for k, cell in enumerate(cells) if self._is_image(cell.strip()))
        if not votes:
            raise InputError(
                f"{self.what}: neither column has addresses or files below {self._folder}; say which is which with --columns caption,image"
            )
        return max(votes, key=lambda k: (votes[k], -k))

    def _is_image(self, cell: str) -> bool:
        if _URL.match(cell):
            return True
        known = cell[cell.rfind(".") :].lower() in SUFFIXES and to_bytes(cell) is not None
        return known and any(os.path.lexists(os.path.join(folder, cell)) for folder in (self.base, self._folder))


class _Folder:
    """The images below ``folder``, found by path, by last part and by number; ``names`` are relative to ``base``."""

    def __init__(self, folder: str, base: str) -> None:
        self._inside = os.path.relpath(folder, base)
        self._base = base
        start = len(os.path.join(base, ""))
        names = Packed.of(os.fsencode(path[start:]) for path in files_below(folder) if path.lower().endswith(SUFFIXES))
        self.names = names.take(names.order())
        lasts = Packed.of(name.rpartition(b"/")[2] for name in self.names)
        self._by_last = lasts.order()
        self._lasts = lasts.take(self._by_last)
        stems = (last.rpartition(b".")[0] for last in lasts)
        numbers = np.array([int(stem) if stem.isdigit() and len(stem) < 18 else _NONE for stem in stems], np.int64)
        self._by_number = np.argsort(numbers, kind="stable")
        self._numbers = numbers[self._by_number]

    def ways(self, cell: str, number: int) -> tuple[int, int, int]:
        """The place of a row's image among ``names`` by each way, ``_NONE`` if it is not there, ``_SEVERAL`` if it cannot be told."""
        return self._by_path(cell), self._by_address(cell), self._one(self._numbers, self._by_number, number)

    def _by_path(self, cell: str) -> int:
        if not cell or _URL.match(cell):
            return _NONE
        path = os.path.relpath(cell, self._base) if os.path.isabs(cell) else os.path.normpath(cell)
        return max(_NONE if data is None else self.names.find(data) for data in map(to_bytes, (path, os.path.join(self._inside, path))))

    def _by_address(self, cell: str) -> int:
        try:
            last = (urlsplit(cell).path if _URL.match(cell) else cell).rstrip("/").rpartition("/")[2]
        except ValueError:  # such as a bracket that is not closed
            return _NONE
        for name in dict.fromkeys((last, unquote(last, errors="surrogateescape"))):
            data = to_bytes(name)
            place = self._lasts_place(data) if data else _NONE
            if place != _NONE:
                return place
        return _NONE

    def _lasts_place(self, data: bytes) -> int:
        place = bisect_left(self._lasts, data)
        if place == len(self._lasts) or self._lasts[place] != data:
            return _NONE
        if place + 1 < len(self._lasts) and self._lasts[place + 1] == data:
            return _SEVERAL
        return int(self._by_last[place])

    @staticmethod
    def _one(ascending: Int64, places: Int64, value: int) -> int:
        first, last = (int(np.searchsorted(ascending, value, side)) for side in ("left", "right"))
        return _NONE if first == last else int(places[first]) if last == first + 1 else _SEVERAL


def _chosen(ways: list[Int64], cells: Int64) -> Int64:
    """What the way that finds most images finds; an image that several addresses lead to by their last parts is none of theirs."""
    best = max(range(len(ways)), key=lambda k: len(np.unique(ways[k][ways[k] >= 0])))  # the first of equally good ones
    found = ways[best]
    if best != _ADDRESS:
        return found
    order = np.lexsort((cells, found))
    before, after = found[order][:-1], found[order][1:]
    unclear = after[(before == after) & (cells[order][:-1] != cells[order][1:])]
    return np.where((found >= 0) & np.isin(found, unclear), _SEVERAL, found)


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell
