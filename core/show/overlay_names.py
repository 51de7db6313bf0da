"""File names for a folder of overlays: where the PNG of an image goes, whatever the image is called."""

from __future__ import annotations

import hashlib

_SUFFIX = ".png"
_UNSAFE = frozenset('%\\:*?"<>|')  # "%" is our escape; the others trouble some file systems or shells
_LONGEST = 240  # bytes of one component without its suffix; file systems allow 255


def overlay_name(file_name: str) -> str:
    """The relative path of an image's overlay: ``a/b.jpg`` → ``a/b.jpg.png``.

    Never absolute, never with a component ``.`` or ``..``, valid UTF-8 without control characters, no component over
    255 bytes. Distinct names give distinct paths, of which none is the other's folder: the image's own suffix stays, and
    what cannot stay is escaped reversibly (``%2F`` style for ASCII and undecodable bytes, ``%u{200B}`` style for others).
    Only over-long components are cut, and then carry a 128-bit digest of the whole.
    """
    *folders, last = file_name.split("/")
    parts = [_folder(part) for part in folders]
    return "/".join([*parts, _shorten(_escape(last), last) + _SUFFIX])


def _folder(part: str) -> str:
    name = _shorten(_escape(part), part)
    if name.lower().endswith(_SUFFIX):
        # Else the folder "a.png" of one image could be the file "a.png" of another.
        name = f"{name[: -len(_SUFFIX)]}%2E{name[1 - len(_SUFFIX) :]}"
    return name


def _escape(part: str) -> str:
    if part == "":
        return "%"
    if part in (".", ".."):
        return part.replace(".", "%2E")
    return "".join(c if c.isprintable() and c not in _UNSAFE else _escaped(ord(c)) for c in part)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as Python carries it
        return f"%{code - 0xDC00:02X}"
    return f"%{code:02X}" if code < 0x80 else f"%u{{{code:X}}}"


def _shorten(name: str, part: str) -> str:
    data = name.encode("utf-8")
    if len(data) <= _LONGEST:
        return name
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return data[: _LONGEST - 40].decode("utf-8", "ignore") + "%~" + digest
