"""Text from outside (names, keys, command lines), made fit to stand in an HTML page."""

from __future__ import annotations

import html
from typing import Any

from ovskit.core.formats import jsonbytes


def printable(text: str) -> str:
    """``text`` with control characters, undecodable bytes and lone surrogates shown as backslash escapes."""
    return "".join(c if c.isprintable() else _backslashed(c) for c in text)


def _backslashed(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as Python carries it
        return f"\\x{code - 0xDC00:02x}"
    return repr(character)[1:-1]


def markup(text: str) -> str:
    """``text`` as HTML that shows it: printable and escaped, for element content and quoted attributes."""
    return html.escape(printable(text), quote=True)


def script_json(value: Any) -> str:
    """``value`` as JSON that can stand in a ``<script type="application/json">``: nothing in it ends the element."""
    return jsonbytes.dumps(value).decode("utf-8").replace("<", "\\u003c")
