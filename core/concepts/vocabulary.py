"""The vocabulary of concepts: nouns with all their forms, from a file, a label space, or the list that ships.

Two terms that are one lemma, such as *man* and *men*, are one concept, and the result does not depend on the order in which terms are
given. Nothing is tagged and nothing is downloaded: a concept is known by its forms.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ovskit.core.concepts.inflection import plurals, singular
from ovskit.core.concepts.lists import default_terms
from ovskit.core.concepts.words import normalised
from ovskit.core.formats.labels.spaces import LabelSpace, open_label_space
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.text_files import decode_utf8, read_small
from ovskit.core.runtime.errors import InputError, OvsError, UsageError

LONGEST = 5
"""Words of a term at most: those of the longest name in the built-in label spaces, "black and gold garden spider"."""

_PLAIN = re.compile(r"[\w' -]+")
_PARTICLES = frozenset("a all and at back been between by down for in it off on out over the to up with".split())
_NAMED = 5  # terms that a message names


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Concepts and the words for them.

    ``names``, sorted, has one for each: the singular, in lower case, as it is shown and prompted ("man", "tennis ball"). ``forms`` has
    each form of each, normalised as captions are (``words.normalised``), and the place of its concept in ``names``. ``hash`` is the first
    16 hex digits of a SHA-256 of names and forms; the order in which terms were given makes no difference.
    """

    names: tuple[str, ...]
    forms: Mapping[str, int] = field(hash=False)
    hash: str


@dataclass(frozen=True, slots=True)
class _Term:
    """A noun as it is shown, other words for it, and where it is from."""

    name: str
    others: tuple[str, ...]


def make_vocabulary(terms: Iterable[str], what: str) -> Vocabulary:
    """The vocabulary of ``terms``, in any order, singular or plural; synonyms follow a term after commas ("sofa, couch").

    Case, white space and Unicode composition make no difference. Terms that are one lemma are one concept (man, men), also if one has a
    hyphen where the other has a blank. A form that two concepts share goes to the one that has it as its name, then to the one for
    which it was given, then to the first by name [choice]. Raises UsageError, naming ``what``, where there is no term, and for terms
    without a letter or of more than 5 words, which it names.
    """
    return _vocabulary([_split(term) for term in terms], what, UsageError)


def read_vocabulary(path: str) -> Vocabulary:
    """The vocabulary in a UTF-8 file: a term a line as ``make_vocabulary`` has it; lines that are empty or begin with # are passed over.

    A mark of byte order and ends of line as Windows has them are allowed. Raises MissingInputError where the file cannot be read,
    InputError where it is not UTF-8, larger than 16 MiB, or has no or impossible terms.
    """
    where = show_path(path)
    text = decode_utf8(read_small(path, "a vocabulary"), where)
    lines = [line.strip() for line in text.split("\n")]
    return _vocabulary([_split(line) for line in lines if line and not line.startswith("#")], where, InputError)


@functools.cache
def default_vocabulary() -> Vocabulary:
    """The list that ships: nouns of photographs' captions that are in WordNet, and everyday things and stuff (``data/vocabulary.txt``)."""
    return make_vocabulary(default_terms(), "the default vocabulary")


def open_vocabulary(text: str | None) -> Vocabulary:
    """The vocabulary that ``text`` stands for: the default for None, a file, or a label space as ``open_label_space`` has it.

    A label space, which a file that ends in ``.json`` is, counts without its background; a class has its name and its synonyms, but
    for synonyms of more than 5 words. Raises what ``read_vocabulary`` and ``open_label_space`` do.
    """
    if text is None:
        return default_vocabulary()
    if _is_file(text) and not text.lower().endswith(".json"):
        return read_vocabulary(text)
    return _of_label_space(open_label_space(text, "--vocabulary"), text)


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:
        return False


def _of_label_space(space: LabelSpace, text: str) -> Vocabulary:
    terms = [
        _Term(_shown(c.name), tuple(_shown(word) for word in c.synonyms if _fault(word) is None))
        for c in space.classes
        if c.id != space.background
    ]
    return _vocabulary(terms, f"label space {show_path(text)}", UsageError)


def _split(line: str) -> _Term:
    name, *others = [_shown(word) for word in line.removesuffix(",").split(",")]
    return _Term(name, tuple(others))


def _shown(word: str) -> str:
    """A term as it is shown: lower case, composed, straight apostrophes, one blank between words."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).lower())
    return " ".join(text.replace("’", "'").split())


def _fault(word: str) -> str | None:
    """What is wrong with a term, None if nothing is."""
    tokens = normalised(word).split(" ")
    if not any(map(str.isalpha, "".join(tokens))):
        return "without a letter"
    return f"of more than {LONGEST} words" if len(tokens) > LONGEST else None


def _vocabulary(terms: Sequence[_Term], what: str, error: type[OvsError]) -> Vocabulary:
    if not terms:
        raise error(f"{what} has no term; give nouns, one a line")
    for fault in ("without a letter", f"of more than {LONGEST} words"):
        wrong = [word for term in terms for word in (term.name, *term.others) if _fault(word) == fault]
        if wrong:
            named = ", ".join(map(reprlib.repr, sorted(set(wrong))[:_NAMED])) + (", …" if len(set(wrong)) > _NAMED else "")
            raise error(f"{what} has terms {fault}: {named}; remove or shorten them")
    groups: dict[str, set[str]] = {}
    for term in terms:
        groups.setdefault(_key(_lemma(term.name)), set()).add(term.name)
    shown = {key: min(map(_lemma, words)) for key, words in groups.items()}
    names = tuple(sorted(shown.values()))
    place = {name: k for k, name in enumerate(names)}
    owned = sorted((place[name], name, sorted(groups[key])) for key, name in shown.items())
    others = sorted({(place[shown[_key(_lemma(term.name))]], other) for term in terms for other in term.others})
    forms: dict[str, int] = {}
    _claim(forms, ((k, name) for k, name, _ in owned))
    _claim(forms, ((k, word) for k, _, words in owned for word in words))
    _claim(forms, ((k, form) for k, name, _ in owned for form in plurals(name)))
    _claim(forms, others)
    _claim(forms, ((k, form) for k, other in others for form in (_lemma(other), *plurals(_lemma(other)))))
    ordered = dict(sorted(forms.items()))
    listed = json.dumps([names, list(ordered.items())], separators=(",", ":"))
    return Vocabulary(names, MappingProxyType(ordered), hashlib.sha256(listed.encode("ascii")).hexdigest()[:16])


def _lemma(word: str) -> str:
    """The singular of a shown term; one with other signs than those of words stays as it is."""
    return singular(word) if _PLAIN.fullmatch(word) else word


def _key(name: str) -> str:
    """What two spellings of one term have in common."""
    return normalised(name).replace("-", " ")


def _claim(forms: dict[str, int], words: Iterable[tuple[int, str]]) -> None:
    """Give each word, and its spelling with hyphens or blanks in place of the other, to its concept unless another has it.

    A hyphen is not dropped beside a word such as *in*: a stand-in is not what people are who "stand in" the street [choice].
    """
    for concept, word in words:
        form = normalised(word)
        apart = form.replace("-", " ")
        beside_particle = not _PARTICLES.isdisjoint(token.removesuffix("s") for token in apart.split(" "))  # stand-ins, too
        for spelling in map(normalised, (form, form if beside_particle else apart, apart.replace(" ", "-"))):
            if spelling.count(" ") < LONGEST:
                forms.setdefault(spelling, concept)
