"""Pairs from JSON Lines: an object with an image's name and its captions on each line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.pairs.captions import Left, LeftOutError, captions_of, parsed
from ovskit.core.formats.pairs.listing import PEEK, Listing, Rows
from ovskit.core.runtime.errors import InputError, MissingInputError

_NAMES = ("file_name", "image", "image_path", "filename")


class JsonLines(Listing):
    """Lines with ``file_name`` (or ``image``, ``image_path``, ``filename``) and ``caption`` or ``captions``; lines about the same image
    are joined, blank ones passed over. Captions are read when they are asked for."""

    def first_names(self) -> list[str]:
        names: list[str] = []
        for _, line in self._lines():
            try:
                name = _name(parsed(line))
            except LeftOutError:
                continue
            names += [name] if isinstance(name, str) else []
            if len(names) == PEEK:
                break
        return names

    def rows(self) -> Rows:
        rows, described = Rows(), False
        number = 0
        for number, (offset, line) in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                entry = parsed(line)
                described |= _name(entry) is not None
                if not captions_of(entry):
                    raise LeftOutError(Left.ALONE)
                name = self.name_of(_name(entry))
                if name is None:
                    raise LeftOutError(Left.NO_IMAGE)
            except LeftOutError as left:
                rows.left_out[left.why] += 1
            else:
                rows.add(name, offset, len(line), number)
        if number and not described:
            raise InputError(f"{self.what}: none of its lines is a JSON object with file_name and caption or captions")
        return rows

    def captions(self, file: BinaryIO | None, offset: int, length: int) -> Sequence[str]:
        assert file is not None
        return captions_of(parsed(os.pread(file.fileno(), length, offset)))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines with their offsets."""
        try:
            with open(self.path, "rb") as file:
                at = 0
                for line in file:
                    bare = jsonbytes.without_mark(line) if at == 0 else line
                    yield at + len(line) - len(bare), bare
                    at += len(line)
        except OSError as error:
            raise MissingInputError(f"cannot read {self.what}: {error.strerror}") from None


def _name(entry: Mapping[str, Any]) -> Any:
    return next((entry[key] for key in _NAMES if entry.get(key)), None)
