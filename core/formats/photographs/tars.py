"""Where the images of an uncompressed tar are, so that each can be read by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ovskit.core.formats.paths import show_path, spellings
from ovskit.core.formats.photographs.tar_walk import is_hidden, walk_tar
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.logs import get_logger

log = get_logger("tars")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


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
    for name, offset, length, target in walk_tar(path):
        if not name.lower().endswith(SUFFIXES) or is_hidden(name):
            found.others += target is None
        elif name in found.images or name in found.links:
            raise InputError(f"{what}: two members are named {show_path(name)}")
        elif target is None:
            found.images[name] = Member(name, offset, length)
        else:
            found.links[name] = target
    found.images |= follow_links(found.images, found.links, what)
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


def follow_links(files: Mapping[str, Member], links: Mapping[str, str], what: str) -> dict[str, Member]:
    """The files that ``links`` (name to target) lead to, by the names of the links: a tar keeps the second name of a file as a link
    to the first. Links that lead to none are logged."""
    found = {}
    lost = []
    for name, target in links.items():
        passed = {name}
        while (target := os.path.normpath(target)) in links and target not in passed:
            passed.add(target)
            target = links[target]
        if target in files:
            found[name] = files[target]._replace(name=name)
        else:
            lost.append(name)
    if lost:
        more = "" if len(lost) == 1 else f" and {len(lost) - 1} more"
        log.warning("%s: passed over %s%s: links to files that are not in it", what, show_path(lost[0]), more)
    return found
