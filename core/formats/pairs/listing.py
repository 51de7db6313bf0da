"""Files that list images and captions: what they have in common.

Where each caption is, is in memory, in arrays; the image files are looked for once, when the list is indexed.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ovskit.core.formats.pairs.captions import Left, LeftOutError, tidy
from ovskit.core.formats.pairs.packed import Int64, Packed
from ovskit.core.formats.pairs.record import Pair, key_of, to_bytes, to_text
from ovskit.core.formats.pairs.unit import Bounds, Opened, Unit, spans
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import locate
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

PEEK = 20
"""Images by which the folder of a list's images is found."""


@dataclass(frozen=True)
class Index:
    """The n pairs of a list, ascending by key, and where their m captions or groups of captions are.

    ``names``: of the images, relative to the root. The parts of pair k are ``first_part[k]`` to ``first_part[k + 1]``, int64 (n + 1,);
    ``offset`` and ``length``, int64 (m,), are bytes in the file, or in what the list keeps; ``number``, int64 (m,), is by which a person
    finds a part.
    """

    keys: Packed
    names: Packed
    first_part: Int64
    offset: Int64
    length: Int64
    number: Int64


class Rows:
    """The rows of a list that have a caption and an image, as they come, and a count of those that have not."""

    def __init__(self) -> None:
        self.names = bytearray()
        self._name_ends = array("q", [0])
        self._offset, self._length, self._number = array("q"), array("q"), array("q")
        self.left_out: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._offset)

    def add(self, name: bytes, offset: int, length: int, number: int) -> None:
        """A row about the image ``name``, relative to the root."""
        self.names += name
        self._name_ends.append(len(self.names))
        self._offset.append(offset)
        self._length.append(length)
        self._number.append(number)

    def indexed(self, root: str, what: str) -> Index:
        """Rows about the same image together. Raises InputError for two images of one key."""
        names = Packed(self.names, np.array(self._name_ends, np.int64))
        keys = Packed.of((to_bytes(key_of(to_text(name), root)) or b"") for name in names)
        order = keys.order()
        names, keys = names.take(order), keys.take(order)
        same = keys.compared() == 0
        for k in np.flatnonzero(same & (names.compared() != 0))[:1].tolist():
            first, second = (show_path(to_text(names[place])) for place in (k, k + 1))
            raise InputError(f"{what}: two images have the key {show_path(to_text(keys[k]))}: {first} and {second}; rename one of them")
        firsts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), ~same]))
        columns = (np.array(column, np.int64)[order] for column in (self._offset, self._length, self._number))
        return Index(keys.take(firsts), names.take(firsts), np.concatenate([firsts, [len(keys)]]), *columns)


class Listing(Unit):
    """A file at ``path`` that lists pairs; its images are below ``base``, and named relative to ``root``."""

    kind = "file"
    prefix = b""
    part = "line"  # what a number of a part counts
    need_images = True
    """Whether a pair counts only if its image is there; else a list is believed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.what = show_path(path)
        self.base = os.path.normpath(os.path.dirname(path) or ".")
        self._root = self.base
        self._index: Index | None = None
        self._left_out: Mapping[str, int] = {}

    def choose_base(self, root: str | None) -> None:
        """The folder of the images: ``root``, else the list's own folder, else its ``images/`` if the first images are there."""
        if root is not None:
            self.base = os.path.normpath(root)
            return
        folder = os.path.join(self.base, "images")
        names = self.first_names()
        if not any(exists(name, self.base) for name in names) and any(exists(name, folder) for name in names):
            self.base = folder

    @abstractmethod
    def first_names(self) -> list[str]:
        """The names of the first few images. Raises InputError or MissingInputError as ``index``."""

    @abstractmethod
    def rows(self) -> Rows:
        """All rows. Raises InputError for a file that is damaged or of another kind, MissingInputError if it cannot be read."""

    @abstractmethod
    def captions(self, file: BinaryIO | None, offset: int, length: int) -> Sequence[str]:
        """The captions at a place. Raises LeftOutError where they are not there."""

    def file(self) -> BinaryIO | None:
        """What ``captions`` reads, None if everything is in memory."""
        return open(self.path, "rb")

    def index(self, root: str) -> None:
        """Find all pairs; their images are named relative to ``root``. Raises as ``rows``, and InputError for two images of one key or
        where there is none of the images."""
        self._root = root
        rows = self.rows()
        if not len(rows) and rows.left_out[Left.NO_IMAGE]:
            raise MissingInputError(
                f"{self.what}: none of its images ({rows.left_out[Left.NO_IMAGE]}) is in {show_path(self.base)}; "
                "name the folder that they are relative to with --root"
            )
        self._index = rows.indexed(root, self.what)
        self._left_out = dict(rows.left_out)
        keys = self._index.keys
        self.bounds = Bounds(keys[0], keys[len(keys) - 1] + b"\0") if len(keys) else Bounds(b"", b"")

    def name_of(self, name: object) -> bytes | None:
        """The name relative to the root of an image that the list calls ``name``, None if it is not there. Raises UsageError where the root
        does not hold it."""
        if not isinstance(name, str) or not name or to_bytes(name) is None:
            return None
        if self.need_images and not exists(name, self.base):
            return None
        if self.base == self._root and not name.startswith(("/", "./", "../")) and "//" not in name and "/." not in name:
            return to_bytes(name)
        relative = os.path.relpath(os.path.join(self.base, name), self._root)
        if relative.startswith(os.pardir + os.sep):
            raise UsageError(f"--root {show_path(self._root)} does not hold {show_path(name)} of {self.what}")
        return to_bytes(relative)

    def open(self) -> Opened:
        try:
            return _OpenListing(self, self.file())
        except OSError as error:
            raise MissingInputError(f"cannot read {self.what}: {error.strerror}") from None

    @property
    def indexed(self) -> Index:
        """What ``index`` found."""
        assert self._index is not None
        return self._index

    @property
    def left_out(self) -> Mapping[str, int]:
        """What ``index`` left out."""
        return self._left_out

    @property
    def root(self) -> str:
        """What ``index`` was given."""
        return self._root


class _OpenListing(Opened):
    def __init__(self, listing: Listing, file: BinaryIO | None) -> None:
        self.keys = listing.indexed.keys
        self.left_out = listing.left_out
        self._listing = listing
        self._file = file

    def pairs(self, rows: Int64) -> list[Pair]:
        found, index, listing = [], self._listing.indexed, self._listing
        firsts, counts, parts = spans(index.first_part, rows)
        offsets, lengths, numbers = (column[parts].tolist() for column in (index.offset, index.length, index.number))
        read: list[Sequence[str]] = [()] * len(parts)
        for k in np.argsort(index.offset[parts], kind="stable").tolist():
            try:
                read[k] = listing.captions(self._file, offsets[k], lengths[k])
            except OSError as error:
                raise MissingInputError(f"cannot read {listing.what}: {error.strerror}") from None
            except LeftOutError:
                read[k] = ()
            if not read[k]:
                raise InputError(f"{listing.what}: {listing.part} {numbers[k]} was changed since it was indexed; run this again")
        for row, first, count in zip(rows.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            name = to_text(index.names[row])
            captions = tidy(text for texts in read[first : first + count] for text in texts)
            where = f"{listing.what}: {listing.part} {numbers[first]}"
            found.append(Pair(to_text(index.keys[row]), name, captions, where, locate(0, name, listing.root)))
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def exists(name: str, base: str) -> bool:
    """Whether there is an image of this name below ``base``, in a tar perhaps. Raises InputError for a tar that is damaged."""
    if to_bytes(name) is None:
        return False
    if os.path.lexists(os.path.join(base, name)):
        return True
    found = locate(0, name, base)
    return found.offset is not None or os.path.lexists(found.path)
