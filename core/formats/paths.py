"""Paths as a terminal can show them, and as the file system spells them."""

from __future__ import annotations

import os
import unicodedata


def show_path(path: str) -> str:
    """A path fit for one line of a terminal: control characters and undecodable bytes escaped."""
    if path.isprintable():
        return path
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that no file name has, but that JSON can hold
        text = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def spelled(path: str) -> str | None:
    """The path of an existing file by this name, or None.

    Names that differ only in how Unicode composes their letters (macOS takes accents apart, others do not) count as equal; where the file
    system has another spelling than ``path``, the result has that spelling.
    """
    if _is_there(path):
        return path
    if path.isascii():
        return None
    head, tail = os.path.split(path)
    if not tail:
        return spelled(head) if head and head != path else None
    folder = spelled(head) if head else ""
    if folder is None:
        return None
    return next((there for name in spellings(tail) if _is_there(there := os.path.join(folder, name))), None)


def spellings(text: str) -> list[str]:
    """``text`` as it is, then with its letters composed (NFC) and taken apart (NFD), where that makes a difference."""
    return list(dict.fromkeys([text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]))


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # NUL, or a surrogate that is not a byte: no file has such a name
        return False
