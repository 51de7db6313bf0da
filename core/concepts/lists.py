"""The lists of words that ship, see ``data/WORDNET.txt`` for where they come from; ``bench/make_vocabulary.py`` makes them."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Mapping
from importlib import resources


@functools.cache
def nouns() -> frozenset[str]:
    """Some 50,000 nouns for what can be seen, of 1 to 4 words in lower case: candidates of ``mining``, and what is known to be a noun."""
    return frozenset(_lines("nouns.txt.gz"))


@functools.cache
def irregular_plurals() -> Mapping[str, tuple[str, ...]]:
    """Nouns whose plural no rule gives, with their plurals: WordNet's list of exceptions."""
    rows = [line.split(" ") for line in _lines("irregular.txt.gz")]
    return {row[0]: tuple(row[1:]) for row in rows}


@functools.cache
def stopped() -> frozenset[str]:
    """Terms that ``mining`` leaves out: in a caption they rarely name something that can be seen."""
    return frozenset(_lines("stop.txt"))


@functools.cache
def added() -> tuple[str, ...]:
    """Things and stuff that photographs have, but that the first sense in WordNet, or the captions that were mined, do not give."""
    return tuple(_lines("add.txt"))


@functools.cache
def known_nouns() -> frozenset[str]:
    """What is known to be a noun in the singular, or a plural with a meaning of its own: ``nouns`` and the names of ``added``."""
    return nouns().union(term.split(",")[0] for term in added())


@functools.cache
def default_terms() -> tuple[str, ...]:
    """The terms of the default vocabulary."""
    return tuple(_lines("vocabulary.txt"))


def _lines(name: str) -> list[str]:
    """The lines of a list, without comments."""
    data = resources.files("ovskit.core.concepts").joinpath("data", name).read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
