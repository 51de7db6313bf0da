"""Where the images of an uncompressed tar are, so that each can be read by itself.

Archives that were put together with ``cat`` are read to the end, as GNU tar does with ``--ignore-zeros``: only zeros may stand
between one and the next.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
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
    """The images of the tar at ``path`` by name; that it holds no images is logged (with -v, or as a warning if it holds other files).

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
    found = _Contents({}, {})
    try:
        with open(path, "rb") as file:
            start: int | None = 0
            while start is not None:
                start = _next_archive(file, _read_archive(file, start, found, what), what)
    except tarfile.TarError:
        raise InputError(f"{what} is not a readable tar: it is truncated, damaged or of another kind; make it again") from None
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
    _follow(found, what)
    if not found.images and found.others:
        log.warning("%s has no images: its files are of other kinds (%d)", what, found.others)
    elif not found.images:
        log.info("%s is empty", what)
    return found.images


@dataclass
class _Contents:
    """The contents so far: images, links that are named like images with their targets, and the number of other files."""

    images: dict[str, Member]
    links: dict[str, str]
    others: int = 0


def _read_archive(file: BinaryIO, start: int, found: _Contents, what: str) -> int:
    """Add the members of the archive that begins at ``start``; returns where its last member ends."""
    end = start
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
        for member in archive:
            if member.size < 0:
                raise InputError(f"{what} is damaged: {show_path(member.name)} is of {member.size} bytes; make it again")
            end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
            name = member.name.removeprefix("./")
            is_image = name.lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in name.split("/"))
            if not (member.isreg() or (is_image and (member.islnk() or member.issym()))):
                continue
            if not is_image:
                found.others += 1
                continue
            if name in found.images or name in found.links:
                raise InputError(f"{what}: two members are named {show_path(name)}")
            if member.isreg():
                found.images[name] = Member(name, member.offset_data, member.size)
            else:
                found.links[name] = member.linkname if member.islnk() else os.path.join(os.path.dirname(name), member.linkname)
    return end


def _follow(found: _Contents, what: str) -> None:
    """Make images of the links that lead to one: a tar keeps the second name of a file as a link to the first."""
    lost = []
    for name, target in found.links.items():
        passed = {name}
        while (target := os.path.normpath(target)) in found.links and target not in passed:
            passed.add(target)
            target = found.links[target]
        if target in found.images:
            found.images[name] = found.images[target]._replace(name=name)
        else:
            lost.append(name)
    if lost:
        more = "" if len(lost) == 1 else f" and {len(lost) - 1} more"
        log.warning("%s: passed over %s%s: links to files that are not in it", what, show_path(lost[0]), more)


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
