"""The files below a folder, the same way for photographs, label maps and ground truth.

Hidden files and folders (``.ipynb_checkpoints``, ``._a.png``) are not data and are left out. Links are followed, and every
folder is read once [choice], by its own name rather than by a link's: a link to a folder on the way down would give its files
again without end, a second link to one all of its files twice. Links that are passed over are logged.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.errors import MissingInputError
from ovskit.core.runtime.logs import get_logger

log = get_logger("walk")

_Folder = tuple[int, int] | str  # device and inode, which are what a folder is whatever it is called; its path where there is no inode


def files_below(folder: str) -> Iterator[str]:
    """The paths, beginning with ``folder``, of all files below it but hidden ones, in an order that depends on their names alone.

    Files of every kind are listed, and links to files, broken ones too. Raises MissingInputError for a folder that cannot be
    read. At the end, one log line says how many links to folders were passed over.
    """
    for _, files in _walk(folder):
        yield from files


def folders_below(folder: str) -> Iterator[str]:
    """``folder`` itself and the paths of all folders below it whose files ``files_below`` lists; raises and logs the same."""
    for where, _ in _walk(folder):
        yield where


def leads_above(folder: str) -> bool:
    """Whether ``folder`` is a link to a folder that holds the link."""
    if not os.path.islink(folder):
        return False
    try:
        return _identity(folder) in _above(folder)
    except OSError:
        return False


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    links = deque([root])
    seen: set[_Folder] = set()
    passed: list[str] = []
    while links:
        start = links.popleft()
        with _reading(start):
            here = _identity(start)
        if here in seen or (start != root and here in _above(start)):
            passed.append(start)
            continue
        stack, met = [(start, here)], []
        while stack:
            where, here = stack.pop()
            if here in seen:  # mounted twice
                passed.append(where)
                continue
            seen.add(here)
            files = []
            with _reading(where), os.scandir(where) as entries:
                for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                    if entry.name.startswith("."):
                        continue
                    path = os.path.join(where, entry.name)
                    if not _is_folder(entry):
                        files.append(path)
                    elif entry.is_symlink():
                        met.append(path)
                    else:
                        stack.append((path, _identity(path)))
            yield where, files
        links.extend(sorted(met, key=os.fsencode))  # only now: a folder's own name goes before a link's
    if passed:
        more = "" if len(passed) == 1 else f" and {len(passed) - 1} more"
        log.warning("passed over %s%s: links to folders that are read anyway, or that hold them", show_path(passed[0]), more)


class _reading:
    """Turns the OSError of a folder that cannot be read into one that says so."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise MissingInputError(f"cannot read folder {show_path(self._folder)}: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in circles: somebody may read it and be told
        return False


def _identity(folder: str) -> _Folder:
    status = os.stat(folder)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _above(link: str) -> set[_Folder]:
    """The folders that hold ``link``, by the way that leads to it and by where it really is."""
    found = set()
    for path in {os.path.abspath(link), os.path.join(os.path.realpath(os.path.dirname(link) or "."), os.path.basename(link))}:
        while (parent := os.path.dirname(path)) != path:
            path = parent
            try:
                found.add(_identity(path))
            except OSError:  # nothing can lead there
                pass
    return found
