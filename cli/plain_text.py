"""Text for people in whatever encoding their terminal has: what it lacks is replaced, and never ends a command."""

from __future__ import annotations

import sys
from typing import Any

# The nearest ASCII of signs that help and tables use.
_NEAREST = {
    **dict.fromkeys("–—−‑", "-"), **dict.fromkeys("‘’", "'"), **dict.fromkeys("“”", '"'),
    "…": "...", "×": "x", "·": ".", "→": "->", "≥": ">=", "≤": "<=", "≠": "!=", "±": "+-", "θ": "theta",
    **dict.fromkeys("│┃║", "|"), **dict.fromkeys("─━═╌", "-"),
    **dict.fromkeys("┌┏┐┓└┗┘┛├┣┤┫┬┳┴┻┼╋┡┢┩┪╇╈╉╊╰╭╮╯", "+"),
}  # fmt: skip


def never_fail() -> None:
    """Make stdout and stderr replace what their encodings lack; what is written as bytes is not touched."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)


def plain(text: str, encoding: str | None = None) -> str:
    """``text`` with the nearest signs that ``encoding`` (that of stdout, if none is given) has."""
    encoding = encoding or _encoding(sys.stdout)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_sign(sign, encoding) for sign in text)
    return text


def stdout_bytes(text: str) -> bytes:
    """``text`` as stdout shows it. Names that are not Unicode are escaped, as they are everywhere."""
    encoding = _encoding(sys.stdout)
    return plain(text.encode("utf-8", "backslashreplace").decode(), encoding).encode(encoding, "replace")


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _sign(sign: str, encoding: str) -> str:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return _NEAREST.get(sign, "?")
    return sign
