"""JSON to and from bytes, for names that no UTF-8 can hold and numbers that no JSON should.

A POSIX file name is bytes. Python carries undecodable ones as lone surrogates, which orjson rejects in both
directions; the standard library writes and reads them as ``\\udcXX`` escapes, so such a name survives every stage.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from ovskit.core.runtime.errors import InputError


def dumps(value: Any) -> bytes:
    """Compact JSON of plain Python values (no NumPy scalars; NaN becomes null, so callers keep it out)."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def loads(data: bytes | bytearray | memoryview, what: str) -> Any:
    """Parse JSON. Raises InputError, naming ``what``, for bytes that are not JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as first:
        text = bytes(data)
        surrogates = b"\\ud" in text.lower()
        if surrogates or b"NaN" in text or b"Infinity" in text:
            try:
                value = json.loads(text, parse_constant=_refuse)
                if surrogates:
                    return value
            except _NotANumberError as name:
                raise InputError(f"{what} is not valid JSON: {name} is not a number there; write null, or leave the key out") from None
            except (ValueError, RecursionError):
                pass
        raise InputError(f"{what} is not valid JSON: {first}") from None


def without_mark(data: bytes) -> bytes:
    """A file's beginning without the byte order mark that some editors write before UTF-8."""
    return data.removeprefix(b"\xef\xbb\xbf")


class _NotANumberError(ValueError):
    """NaN, Infinity or -Infinity, which Python's own writer makes and JSON has not."""


def _refuse(name: str) -> NoReturn:
    raise _NotANumberError(name)
