"""An image-text pair, and who it is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.photographs.tars import SUFFIXES


@dataclass(frozen=True, slots=True)
class Pair:
    """One image and what is said of it.

    ``key``: who it is, see ``key_of``. ``file_name``: its image as feature streams name it, relative to the root of the pairs.
    ``captions``: at least one, none blank and none twice, in the file's order; without white space around them, with the line breaks
    inside. ``where``: where they are, for messages. ``image``: the image to read, with id 0.
    """

    key: str
    file_name: str
    captions: tuple[str, ...]
    where: str
    image: Source


def key_of(file_name: str, root: str = "") -> str:
    """Who the image ``file_name``, relative to ``root``, is: its name without the image's suffix and without the ``.tar`` of its tar.

    ``00000.tar/000000031.jpg`` is ``00000/000000031``; the first part of a name that ends in ``.tar`` is a tar, since no tar is looked for
    in another. If the root is a tar itself its stem goes before, so that a key does not depend on how many tars were named:
    ``000000031.jpg`` under ``x/00000.tar`` is the same.
    """
    inside = os.path.basename(os.path.normpath(root)) if root else ""
    *folders, name = file_name.split("/")
    if inside.endswith(".tar"):
        folders.insert(0, inside.removesuffix(".tar"))
    else:
        tar = next((k for k, folder in enumerate(folders) if folder.endswith(".tar")), None)
        if tar is not None:
            folders[tar] = folders[tar].removesuffix(".tar")
    stem, dot, suffix = name.rpartition(".")
    if f"{dot}{suffix}".lower() in SUFFIXES:
        name = stem
    return "/".join([*folders, name])


def to_bytes(text: str) -> bytes | None:
    """A name as the bytes by which names are sorted; None for one that no file can have."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that is not a byte, which JSON can hold
        return None
    return None if b"\0" in data or len(data) > _LONGEST else data


def to_text(data: bytes) -> str:
    """What ``to_bytes`` was given."""
    return data.decode("utf-8", "surrogateescape")


_LONGEST = 4096  # bytes in a path, by Linux
