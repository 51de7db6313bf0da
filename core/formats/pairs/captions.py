"""The captions in a text file or a JSON object, and why there are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from ovskit.core.formats import jsonbytes
from ovskit.core.runtime.errors import InputError

TEXTS = (".txt", ".text", ".caption")
JSON = ".json"


class Left(StrEnum):
    """Why something is left out; the words name what is counted."""

    ALONE = "images without a caption"
    NO_IMAGE = "captions without an image"
    BLANK = "blank captions"
    UNDECODABLE = "captions that are not UTF-8"
    DAMAGED = "captions in damaged JSON or rows"
    FAILED = "failed downloads"
    UNCLEAR = "captions whose image cannot be told from another"


class LeftOutError(Exception):
    """There is nothing to use, for the reason ``why``."""

    def __init__(self, why: Left) -> None:
        super().__init__(str(why))
        self.why = why


def text_captions(data: bytes) -> tuple[str, ...]:
    """The whole text as one caption, without white space around it. Raises LeftOutError."""
    try:
        text = jsonbytes.without_mark(data).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise LeftOutError(Left.UNDECODABLE) from None
    if not text:
        raise LeftOutError(Left.BLANK)
    return (text,)


def json_captions(data: bytes) -> tuple[str, ...]:
    """The captions of a sample's JSON object, none if it is about other things. Raises LeftOutError."""
    return captions_of(parsed(data))


def parsed(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises LeftOutError where it is none."""
    try:
        value = jsonbytes.loads(jsonbytes.without_mark(data), "")
    except InputError:
        raise LeftOutError(Left.DAMAGED) from None
    if not isinstance(value, dict):
        raise LeftOutError(Left.DAMAGED)
    return value


def captions_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions under ``caption`` and ``captions``; if there are none, those under the first of ``text``, ``TEXT`` and ``txt`` that has
    some [choice]. None if the object has none of these keys, or null.

    Raises LeftOutError where there are some and none can be used, or where the object says that the image could not be downloaded, as
    img2dataset's ``status`` does.
    """
    status = entry.get("status")
    if isinstance(status, str) and status != "success":
        raise LeftOutError(Left.FAILED)
    reasons: list[Left] = []
    for keys in (("caption", "captions"), ("text",), ("TEXT",), ("txt",)):
        given = [text for key in keys for text in _texts(entry.get(key))]
        found = tidy(given)
        if found:
            return found
        if given:
            reasons.append(Left.UNDECODABLE if any(map(str.strip, given)) else Left.BLANK)
    if reasons:
        raise LeftOutError(max(reasons, key=[Left.BLANK, Left.UNDECODABLE].index))
    return ()


def tidy(texts: Iterable[str]) -> tuple[str, ...]:
    """Captions without white space around them, blank ones, repeats, and those with half a character, which JSON can hold."""
    return tuple(dict.fromkeys(text for given in texts if (text := given.strip()) and is_utf8(text)))


def is_utf8(text: str) -> bool:
    """Whether there are bytes for a text: none has lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
