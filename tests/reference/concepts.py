"""Concepts of a caption as one would find them by hand: cut at everything that is not part of a word, try every form at every place."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping


def words(text: str) -> list[str]:
    """Lower-case tokens, character by character: letters and digits, and single hyphens or apostrophes between two of them."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).replace("’", "'")
    inside = [character.isalnum() for character in text]
    joined = [
        here or (text[k] in "-'" and 0 < k < len(text) - 1 and inside[k - 1] and inside[k + 1])
        for k, here in enumerate(inside)
    ]  # fmt: skip
    found, token = [], ""
    for character, belongs in zip(text + " ", [*joined, False], strict=True):
        if belongs:
            token += character
        elif token:
            found.append(token)
            token = ""
    return [possessor(token) for token in found]


def possessor(token: str) -> str:
    return possessor(token[:-2]) if token.endswith("'s") else token


def concepts(caption: str, forms: Mapping[str, int]) -> list[int]:
    """Ids, ascending: from the first token on, the longest form that is there, then on behind it."""
    tokens = words(caption)
    table = {tuple(form.split(" ")): concept for form, concept in forms.items()}
    named, place = set(), 0
    while place < len(tokens):
        there = [form for form in table if tuple(tokens[place : place + len(form)]) == form]
        if there:
            longest = max(there, key=len)
            named.add(table[longest])
            place += len(longest)
        else:
            place += 1
    return sorted(named)
