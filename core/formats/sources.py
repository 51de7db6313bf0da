"""Which images a command works on: files, folders, globs, path lists, tar shards, a COCO file's ``images``.

Every input has one name, its path relative to the *root*: the deepest folder that holds all inputs, unless one is
given. An uncompressed tar counts as a folder, so its members are named and found again like files.
"""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.lvis import image_name
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
_TAR_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Source:
    """One image to read: its ``id`` and ``file_name`` as streams carry them, and where its bytes are.

    ``offset`` and ``length`` are None for a file of its own, else the member's place in the tar at ``path``.
    """

    id: int
    file_name: str
    path: str
    offset: int | None = None
    length: int | None = None

    def read(self) -> bytes:
        """The image's bytes. Raises MissingInputError if they cannot be read."""
        try:
            with open(self.path, "rb") as file:
                if self.offset is None:
                    return file.read()
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise MissingInputError(f"cannot read {show_path(self.path)}: {error.strerror}") from None
        except ValueError:  # NUL, or a surrogate that is no byte: no file has such a name
            raise MissingInputError(f"cannot read {show_path(self.path)}: not a possible file name") from None


@dataclass(frozen=True, slots=True)
class Sources:
    """All inputs in the order of their ids, and the root their names are relative to."""

    root: str
    items: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    path: str  # absolute or relative to the working folder; a tar member's is TAR/member
    tar: str | None = None
    offset: int | None = None
    length: int | None = None


def show_path(path: str) -> str:
    """A path fit for one line of a terminal: control characters and undecodable bytes escaped."""
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that no file name has, but that JSON can hold
        text = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def list_sources(inputs: Sequence[str], *, root: str | None = None) -> Sources:
    """The images that ``inputs`` (files, folders, globs, tars) name, sorted by name, ids from 1.

    Folders are searched recursively, hidden entries left out. Raises MissingInputError for a path that is not there, a
    glob or folder without images; InputError for a damaged tar or two images of one name; UsageError where ``root``
    does not hold an input.
    """
    found: list[_Found] = []
    holders: list[str] = []
    for text in inputs:
        for path in _expand(text):
            new, holder = _search(path)
            found += new
            holders.append(holder)
    if not found:
        raise MissingInputError("no inputs: name files, folders, globs or tars, or pipe in a list of paths")
    base = os.path.normpath(root) if root is not None else _common_folder(holders)
    named = sorted(((_relative(item.path, base), item) for item in found), key=lambda pair: os.fsencode(pair[0]))
    _refuse_twins(name for name, _ in named)
    items = tuple(Source(k, name, f.tar or f.path, f.offset, f.length) for k, (name, f) in enumerate(named, 1))
    return Sources(base, items)


def parse_path_list(data: bytes, *, nul: bool = False) -> list[str]:
    """Paths from a list, one per line (or NUL-separated); empty entries are passed over. Bytes need not be UTF-8."""
    entries = data.split(b"\0") if nul else (line.removesuffix(b"\r") for line in data.split(b"\n"))
    return [os.fsdecode(entry) for entry in entries if entry]


def sources_from_coco(path: str, *, root: str | None = None) -> Sources:
    """The ``images`` of a COCO file, with its ids and names, found below ``root`` (default: the file's folder).

    LVIS' have no names; theirs are the last two parts of their address, ``val2017/000000397133.jpg``.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingInputError(f"cannot read {show_path(path)}: {error.strerror}") from None
    document = jsonbytes.loads(jsonbytes.without_mark(data), show_path(path))
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise InputError(f'{show_path(path)}: a COCO file has a list of "images"')
    if not images:
        raise MissingInputError(f'{show_path(path)}: its list of "images" is empty')
    base = root if root is not None else os.path.dirname(path) or "."
    items = []
    for entry in images:
        name = image_name(entry) if isinstance(entry, dict) else None
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or type(number) is not int or not 0 < number < 10**12:
            raise InputError(f"{show_path(path)}: every image needs a file_name and a positive whole id")
        items.append(locate(number, name, base))
    items.sort(key=lambda item: item.id)
    for before, after in pairwise(items):
        if before.id == after.id:
            raise InputError(f"{show_path(path)}: two images have id {after.id}")
    _refuse_twins(sorted(item.file_name for item in items))
    return Sources(base, tuple(items))


def locate(image_id: int, file_name: str, root: str) -> Source:
    """Find again an image that a stream names, below ``root``; a part of the path that is a tar is looked into.

    A missing file is only noticed by ``Source.read``.
    """
    path = os.path.join(root, file_name)
    if os.path.lexists(path):
        return Source(image_id, file_name, path)
    head = path
    inside: list[str] = []
    while head and head not in (os.sep, "."):
        if os.path.isfile(head):
            if head.endswith(".tar"):
                member = _tar_index(head).get("/".join(reversed(inside)))
                if member is not None:
                    return Source(image_id, file_name, head, member.offset, member.length)
            break
        head, tail = os.path.split(head)
        inside.append(tail)
    return Source(image_id, file_name, path)


def _expand(text: str) -> list[str]:
    if os.path.lexists(text):
        return [text]
    if glob.has_magic(text):
        matches = glob.glob(text, recursive=True)
        if not matches:
            raise MissingInputError(f"no file matches {show_path(text)}")
        return matches
    raise MissingInputError(f"no such file or folder: {show_path(text)}")


def _search(path: str) -> tuple[list[_Found], str]:
    """What one existing path holds, and the folder that its names are relative to at the deepest."""
    path = os.path.normpath(path)
    if os.path.isdir(path):
        found = _walk(path)
        if not found:
            raise MissingInputError(f"no images in {show_path(path)} (looked for {' '.join(SUFFIXES)} and .tar)")
        return found, path
    if path.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise UsageError(f"{show_path(path)}: compressed tars cannot be read at random; unpack it, or store it as plain .tar")
    if path.endswith(".tar"):
        return list(_tar_index(path).values()), path
    return [_Found(path)], os.path.dirname(path) or "."


def _walk(folder: str) -> list[_Found]:
    found: list[_Found] = []

    def refuse(error: OSError) -> None:
        raise MissingInputError(f"cannot read folder {show_path(str(error.filename))}: {error.strerror}") from None

    for where, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            path = os.path.join(where, name)
            if name.lower().endswith(SUFFIXES):
                found.append(_Found(path))
            elif name.endswith(".tar"):
                found += _tar_index(path).values()
    return found


_TAR_INDEXES: dict[tuple[str, int, int], dict[str, _Found]] = {}


def _tar_index(path: str) -> dict[str, _Found]:
    """Image members of an uncompressed tar by name. Raises InputError where it is damaged, truncated or names one twice."""
    try:
        status = os.stat(path)
        key = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
        if key in _TAR_INDEXES:
            return _TAR_INDEXES[key]
        index: dict[str, _Found] = {}
        end = 0
        with tarfile.open(path, "r:", errors="surrogateescape") as archive:
            for member in archive:
                end = member.offset_data + (-(-member.size // _TAR_BLOCK) * _TAR_BLOCK if member.isreg() else 0)
                name = member.name.removeprefix("./")
                if not member.isreg() or not name.lower().endswith(SUFFIXES) or os.path.basename(name).startswith("."):
                    continue
                if name in index:
                    raise InputError(f"{show_path(path)}: two members are named {show_path(name)}")
                index[name] = _Found(os.path.join(path, name), path, member.offset_data, member.size)
        with open(path, "rb") as file:
            file.seek(end)
            closing = file.read(2 * _TAR_BLOCK)
    except tarfile.TarError:
        raise InputError(f"{show_path(path)} is no readable tar, or a damaged one; make it again") from None
    except OSError as error:
        raise MissingInputError(f"cannot read {show_path(path)}: {error.strerror}") from None
    # Without its two closing blocks a tar that was cut between members looks complete to every tool.
    if closing != bytes(2 * _TAR_BLOCK):
        raise InputError(f"{show_path(path)} is truncated: its closing blocks are missing; copy it again")
    if not index:
        raise MissingInputError(f"no images in {show_path(path)}")
    _TAR_INDEXES[key] = index
    return index


def _common_folder(holders: Iterable[str]) -> str:
    folders = list(dict.fromkeys(holders))
    if len(folders) == 1:
        return folders[0]
    absolute = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    if any(os.path.isabs(folder) for folder in folders):
        return absolute
    return os.path.relpath(absolute)


def _relative(path: str, base: str) -> str:
    name = os.path.relpath(path, base)
    if name.startswith(os.pardir + os.sep):
        raise UsageError(f"--root {show_path(base)} does not hold {show_path(path)}")
    return name


def _refuse_twins(names: Iterable[str]) -> None:
    before = None
    for name in names:
        if name == before:
            raise InputError(f"two images are named {show_path(name)}; a name may appear once, or streams could not tell them apart")
        before = name
