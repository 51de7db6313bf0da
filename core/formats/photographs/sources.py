"""Which images a command works on: files, folders, globs, path lists, tar shards, a COCO file's ``images``.

Every input has one name, its path relative to the *root*: the deepest folder that holds all inputs, unless one is
given. An uncompressed tar counts as a folder, so its members are named and found again like files. Paths that differ from what
is there only in how their letters are composed are found.
"""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

from ovskit.core.formats.paths import show_path, spelled, spellings
from ovskit.core.formats.photographs.tars import SUFFIXES, find_member, tar_index
from ovskit.core.formats.walk import files_below, folders_below, leads_above
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

log = get_logger("sources")

__all__ = [
    "SUFFIXES", "Source", "Sources", "common_folder", "expand_input", "left_of", "list_sources", "locate", "parse_path_list",
    "refuse_twins",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """One image to read: its ``id`` and ``file_name`` as streams carry them, and where its bytes are.

    ``offset`` and ``length`` are None for a file of its own, else the member's place in the tar at ``path``. ``size`` (width, height) is
    the size that a COCO file states. ``exif`` states how its EXIF orientation is treated (``formats.photographs``).
    """

    id: int
    file_name: str
    path: str
    offset: int | None = None
    length: int | None = None
    size: tuple[int, int] | None = None
    exif: str = "apply"

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
        except ValueError:  # NUL, or a surrogate that is not a byte: no file has such a name
            raise MissingInputError(f"cannot read {show_path(self.path)}: not a possible file name") from None


@dataclass(frozen=True, slots=True)
class Sources:
    """All inputs in the order of their ids, and the root their names are relative to."""

    root: str
    items: tuple[Source, ...]

    @property
    def exif(self) -> str:
        """How the orientations of these images are taken, as a header says it."""
        return "ignore" if any(item.exif == "ignore" for item in self.items) else "apply"

    def with_exif(self, exif: str | None) -> Sources:
        """The same, their orientations taken as ``exif`` says; None changes nothing."""
        return self if exif is None else replace(self, items=tuple(replace(item, exif=exif) for item in self.items))


@dataclass(frozen=True, slots=True)
class _Located:
    path: str  # absolute or relative to the working folder; a tar member's is TAR/member
    tar: str | None = None
    offset: int | None = None
    length: int | None = None


def list_sources(inputs: Sequence[str], *, root: str | None = None, failures: Failures | None = None) -> Sources:
    """The images that ``inputs`` (files, folders, globs, tars) name, sorted by name, ids from 1.

    Folders are searched as ``walk.files_below`` does. A damaged tar goes to ``failures`` if given, and none of its images is used; a tar
    without images is passed over, if there are other inputs. Raises MissingInputError for a path that is not there, a glob or folder
    without images, or no images at all; InputError for a damaged tar or two images of one name; UsageError where ``root`` does not hold an
    input.
    """
    found: list[_Located] = []
    holders: list[str] = []
    paths = [path for text in inputs for path in expand_input(text)]
    for path in paths:
        if len(paths) > 1 and leads_above(path):
            log.warning("passed over %s: a link to a folder that holds it", show_path(path))
            continue
        new, holder = _search(path, failures)
        found += new
        holders.append(holder)
    if not inputs:
        raise MissingInputError("no inputs: name files, folders, globs or tars, or pipe in a list of paths")
    if not found:
        raise MissingInputError(f"no images in {', '.join(map(show_path, paths[:3]))}{' …' if len(paths) > 3 else ''}")
    base = os.path.normpath(root) if root is not None else common_folder(holders)
    named = sorted(((_relative(item.path, base), item) for item in found), key=lambda pair: os.fsencode(pair[0]))
    refuse_twins(name for name, _ in named)
    items = tuple(Source(k, name, f.tar or f.path, f.offset, f.length) for k, (name, f) in enumerate(named, 1))
    return Sources(base, items)


def left_of(sources: Iterable[Source], done: Set[int]) -> list[Source]:
    """The images whose ids are not in ``done``, in order."""
    return [source for source in sources if source.id not in done]


def parse_path_list(data: bytes, *, nul: bool = False) -> list[str]:
    """Paths from a list, one per line (or NUL-separated); empty entries are passed over. Bytes need not be UTF-8.

    A byte-order mark is passed over, and a list in UTF-16 with one is read, as Windows' PowerShell writes them.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
    data = data.removeprefix(codecs.BOM_UTF8)
    entries = data.split(b"\0") if nul else (line.removesuffix(b"\r") for line in data.split(b"\n"))
    return [os.fsdecode(entry) for entry in entries if entry]


def locate(image_id: int, file_name: str, root: str) -> Source:
    """Find again an image that a stream names, below ``root``; a part of the path that is a tar is looked into.

    A missing file is only noticed by ``Source.read``. Raises InputError for a damaged tar.
    """
    path = os.path.join(root, file_name)
    there = spelled(path)
    if there is not None:
        return Source(image_id, file_name, there)
    head = path
    inside: list[str] = []
    while head and head not in (os.sep, "."):
        tar = spelled(head)
        if tar is not None and os.path.isfile(tar):
            if tar.endswith(".tar"):
                member = find_member(tar, "/".join(reversed(inside)))
                if member is not None:
                    return Source(image_id, file_name, tar, member.offset, member.length)
            break
        head, tail = os.path.split(head)
        inside.append(tail)
    return Source(image_id, file_name, path)


def expand_input(text: str) -> list[str]:
    """The existing paths that an input names: itself, or what it matches as a glob. Raises MissingInputError where that is nothing."""
    there = spelled(text)
    if there is not None:
        return [there]
    if glob.has_magic(text):
        matches = next((found for pattern in spellings(text) if (found := _matches(pattern))), None)
        if not matches:
            raise MissingInputError(f"no file matches {show_path(text)}")
        return matches
    raise MissingInputError(f"no such file or folder: {show_path(text)}")


def _matches(pattern: str) -> list[str]:
    """What a glob matches; ``**`` is any folder below, found as all folders are, since glob's own follows links in circles."""
    before, mark, after = _around_stars(pattern)
    if not mark:
        return glob.glob(pattern)
    found: dict[str, None] = {}
    for base in glob.glob(before) if before else ["."]:
        if not os.path.isdir(base):
            continue
        if not after:
            found[base] = None  # all files below it, which is what its folder stands for
            continue
        for folder in folders_below(base):
            start = glob.escape(os.path.normpath(folder) if before else os.path.relpath(folder))
            found |= dict.fromkeys(_matches(after if start == "." else os.path.join(start, after)))
    return list(found)


def _around_stars(pattern: str) -> tuple[str, str, str]:
    """A pattern in three parts at its first ``**`` component: what is before it, ``**``, and what comes after."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return pattern, "", ""
    k = parts.index("**")
    return os.sep.join(parts[:k]) or (os.sep if k else ""), "**", os.sep.join(part for part in parts[k + 1 :] if part)


def _search(path: str, failures: Failures | None) -> tuple[list[_Located], str]:
    """The images that one existing path holds, and the deepest folder that their names can be relative to."""
    path = os.path.normpath(path)
    if os.path.isdir(path):
        found, empty = _below(path, failures)
        if not (found or empty):
            raise MissingInputError(f"no images in {show_path(path)} (looked for {' '.join(SUFFIXES)} and .tar)")
        return found, path
    if path.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise UsageError(f"{show_path(path)}: compressed tars cannot be read at random; unpack it, or store it as plain .tar")
    if path.endswith(".tar"):
        return _in_tar(path, failures), path
    return [_Located(path)], os.path.dirname(path) or "."


def _below(folder: str, failures: Failures | None) -> tuple[list[_Located], bool]:
    """The images of a folder, and whether it has tars without images."""
    found: list[_Located] = []
    empty = False
    for path in files_below(folder):
        if path.lower().endswith(SUFFIXES):
            found.append(_Located(path))
        elif path.endswith(".tar"):
            inside = _in_tar(path, failures)
            found += inside
            empty |= not inside
    return found, empty


def _in_tar(path: str, failures: Failures | None) -> list[_Located]:
    try:
        return [_Located(os.path.join(path, name), path, offset, length) for name, offset, length in tar_index(path).values()]
    except (InputError, MissingInputError) as error:
        if failures is None:
            raise
        failures.handle(error, "tar")
        return []


def common_folder(holders: Iterable[str]) -> str:
    """The deepest folder that holds all of ``holders``, which are folders or tars."""
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


def refuse_twins(names: Iterable[str]) -> None:
    """Raises InputError if a name is twice among the sorted ``names``."""
    before = None
    for name in names:
        if name == before:
            raise InputError(f"two images are named {show_path(name)}; a name may appear once, or streams could not tell them apart")
        before = name
