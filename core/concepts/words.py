"""The words of a caption as they are compared: whole tokens in lower case.

A token is a run of letters and digits, with hyphens and apostrophes inside: "t-shirt" is one, so "man" is not in "wo-man". Case is
folded, letters are composed (NFC), a curly apostrophe is a straight one, and the possessive ending is dropped: a "dog's" leash shows
a dog [choice].
"""

from __future__ import annotations

import re
import unicodedata

_TOKEN = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")


def tokens_of(text: str) -> list[str]:
    """The tokens of a text, in its order."""
    if text.isascii():
        found = _ASCII_TOKEN.findall(text.lower())
        return [_without_possessive(token) for token in found] if "'" in text else found
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return [_without_possessive(token.replace("’", "'")) for token in _TOKEN.findall(folded)]


def normalised(text: str) -> str:
    """The tokens of a text with one blank between them."""
    return " ".join(tokens_of(text))


def _without_possessive(token: str) -> str:
    while token.endswith("'s"):
        token = token[:-2]
    return token
