"""The index of a tar's pairs, kept in a file so that the tar is walked through once and not in every job.

``<hash of the tar's absolute path>.pairs`` in a folder of its own: a line of JSON, which states what tar it is for and how many there
are of what; the columns of ``TarContents`` one behind the other, compressed by zlib; CRC-32 of all that, 4 bytes, little-endian. Offsets
are written as differences, and numbers with all their lowest bytes first, which compresses to a few bytes a pair. Nothing in it is
trusted: one that is damaged, of another version or of another state of the tar is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.pairs.captions import JSON, TEXTS, Left
from ovskit.core.formats.pairs.packed import Packed
from ovskit.core.formats.pairs.tar_contents import TarContents
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.tars import SUFFIXES
from ovskit.core.runtime.cache_folder import own_folder
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.logs import get_logger

log = get_logger("pairs")

_FORMAT = "ovskit.pairs-index/1"


class Sidecars:
    """The indices of tars in one folder, by default ``pairs`` in the user's own (``runtime.cache_folder``)."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder if folder is not None else _default_folder()
        self._said = False

    def load(self, tar: str, status: os.stat_result) -> TarContents | None:
        """What is kept for the tar as it is, by its ``status``; None if there is nothing that can be used."""
        place = self._place(tar)
        if place is None:
            return None
        try:
            data = place.read_bytes()
        except OSError:
            return None
        try:
            return _unpack(data, status.st_size, status.st_mtime_ns)
        except (_UnfitError, InputError, zlib.error, LookupError, TypeError, ValueError) as error:
            log.debug("index of %s is made anew: %s", show_path(tar), error)
            return None

    def save(self, tar: str, contents: TarContents, status: os.stat_result) -> None:
        """Keep the contents that the tar had when ``status`` was taken. That it cannot be written is a warning, once."""
        place = self._place(tar)
        if place is None:
            self._say_lost("there is no folder for it")
            return
        temporary = None
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f"{place.name}.", delete=False) as file:
                temporary = file.name
                file.write(_pack(contents, status.st_size, status.st_mtime_ns))
            os.replace(temporary, place)
        except OSError as error:
            self._say_lost(f"cannot write {show_path(str(place.parent))}: {error.strerror}")
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def _place(self, tar: str) -> Path | None:
        if self._folder is None:
            return None
        return Path(self._folder) / f"{hashlib.sha256(os.fsencode(os.path.abspath(tar))).hexdigest()[:40]}.pairs"

    def _say_lost(self, why: str) -> None:
        if not self._said:
            log.warning("the indices of tars are not kept, and every run has to make them again: %s", why)
        self._said = True


def _default_folder() -> str | None:
    own = own_folder()
    return None if own is None else os.path.join(own, "pairs")


class _UnfitError(Exception):
    """The file is not the index that is wanted."""


def _pack(contents: TarContents, size: int, mtime_ns: int) -> bytes:
    header = {
        "format": _FORMAT,
        "tar": [size, mtime_ns],
        "pairs": len(contents.keys),
        "parts": len(contents.part_suffix),
        "key_bytes": len(contents.keys.blob),
        "suffixes": list(contents.suffixes),
        "left_out": {str(reason): number for reason, number in contents.left_out.items()},
    }
    columns: tuple[np.ndarray[Any, Any], ...] = (
        contents.keys.lengths.astype(np.uint16),
        contents.image_suffix,
        np.diff(contents.image_offset, prepend=0),
        contents.image_length,
        np.diff(contents.first_part).astype(np.uint16),
        contents.part_suffix,
        np.diff(contents.part_offset, prepend=0),
        contents.part_length,
    )
    packed = b"".join([bytes(contents.keys.blob), *map(_apart, columns)])
    data = jsonbytes.dumps(header) + b"\n" + zlib.compress(packed, 6)
    return data + zlib.crc32(data).to_bytes(4, "little")


def _unpack(data: bytes, size: int, mtime_ns: int) -> TarContents:
    if len(data) < 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise _UnfitError("damaged")
    end = data.find(b"\n")
    header = jsonbytes.loads(data[:end], "index")
    if header["format"] != _FORMAT or header["tar"] != [size, mtime_ns]:
        raise _UnfitError("of another version, or of another state of the tar")
    n, m, key_bytes = (_number(header[key]) for key in ("pairs", "parts", "key_bytes"))
    kinds = [("<u2", n), ("u1", n), ("<i8", n), ("<i8", n), ("<u2", n), ("u1", m), ("<i8", m), ("<i8", m)]
    wanted = key_bytes + sum(np.dtype(kind).itemsize * rows for kind, rows in kinds)
    unzip = zlib.decompressobj()
    packed = unzip.decompress(data[end + 1 : -4], wanted + 1)
    if len(packed) != wanted or not unzip.eof:
        raise _UnfitError("of another length than it states")
    columns, at = [], key_bytes
    for kind, rows in kinds:
        columns.append(_together(packed, at, kind, rows))
        at += np.dtype(kind).itemsize * rows
    lengths, image_suffix, image_offset, image_length, parts, part_suffix, part_offset, part_length = columns
    starts, first_part = (np.concatenate([[0], np.cumsum(column, dtype=np.int64)]) for column in (lengths, parts))
    contents = TarContents(
        Packed(packed[:key_bytes], starts), tuple(header["suffixes"]), image_suffix, np.cumsum(image_offset), image_length, first_part,
        part_suffix, np.cumsum(part_offset), part_length, header["left_out"],
    )  # fmt: skip
    _check(contents, size)
    return contents


def _check(contents: TarContents, size: int) -> None:
    """Raises _UnfitError where the columns contradict each other or the size of the tar."""
    suffixes, keys = contents.suffixes, contents.keys
    words = [isinstance(suffix, str) and suffix.lower() for suffix in suffixes]
    images = np.array([word in SUFFIXES for word in words], bool)
    texts = np.array([word in (*TEXTS, JSON) for word in words], bool)
    good = keys.starts[-1] == len(keys.blob) and contents.first_part[-1] == len(contents.part_suffix)
    good = good and not np.any(np.diff(contents.first_part) < 1) and b"\0" not in keys.blob
    good = good and int(contents.image_suffix.max(initial=0)) < max(1, len(words)) and bool(images[contents.image_suffix].all())
    good = good and int(contents.part_suffix.max(initial=0)) < max(1, len(words)) and bool(texts[contents.part_suffix].all())
    for offset, length in ((contents.image_offset, contents.image_length), (contents.part_offset, contents.part_length)):
        good = good and not np.any((offset < 0) | (offset > size) | (length < 0) | (length > size - offset))
    good = good and bool((keys.compared() < 0).all())
    good = good and all(reason in list(Left) and _number(number) for reason, number in contents.left_out.items())
    if not good:
        raise _UnfitError("its columns contradict each other")


def _apart(column: np.ndarray[Any, Any]) -> bytes:
    """All lowest bytes of a column, then all second ones, and so on."""
    little = column.astype(column.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(len(column), column.dtype.itemsize).T.tobytes()


def _together(data: bytes, at: int, kind: str, rows: int) -> np.ndarray[Any, Any]:
    """The column that ``_apart`` wrote."""
    size = np.dtype(kind).itemsize
    planes = np.frombuffer(data, np.uint8, size * rows, at).reshape(size, rows)
    return np.ascontiguousarray(planes.T).reshape(-1).view(kind)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise _UnfitError("a number is not possible")
    return value
