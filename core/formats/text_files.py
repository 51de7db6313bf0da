"""Small text files that a person writes: lists of classes, of words."""

from __future__ import annotations

from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.errors import InputError, MissingInputError

LARGEST = 16 << 20


def read_small(path: str, what: str) -> bytes:
    """The bytes of a file of at most 16 MiB. Raises MissingInputError where it cannot be read, InputError, which says that 16 MiB are the
    limit for ``what``, where it is larger."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise MissingInputError(f"cannot read {show_path(path)}: {error.strerror}") from None
    except ValueError:  # NUL, or a surrogate that is not a byte: no file has such a name
        raise MissingInputError(f"cannot read {show_path(path)}: not a possible file name") from None
    if len(data) > LARGEST:
        raise InputError(f"{show_path(path)} is larger than {LARGEST >> 20} MiB, the limit for {what}")
    return data


def decode_utf8(data: bytes, where: str) -> str:
    """The text of a file, without a mark of byte order. Raises InputError, which names the line and what to do, for bytes that are not
    UTF-8."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}:{data.count(10, 0, error.start) + 1}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8, "
            "for instance with: iconv -f latin1 -t utf-8"
        ) from None
