"""Plurals of English nouns and the singular of a plural: rules, with WordNet's exceptions and a few of everyday speech.

The rules are those of any school grammar. They are ours since they keep more of everyday nouns right than the libraries do, and need
nothing: ``bench/concepts.py`` has the numbers. A form that is not a word is harmless, as no caption has it; a form that is a word of
another meaning is not, so where two plurals compete the rarer one is left out ("wolfs", "dies") [choice].
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from ovskit.core.concepts.lists import irregular_plurals, known_nouns, nouns

_VOWELS = "aeiou"
_HEAD_BEFORE = {"of", "in", "on", "at", "with", "and", "for", "to", "de", "by"}
"""Of "cup of tea" it is the word before the preposition that has a plural."""

_OURS: Mapping[str, tuple[str, ...]] = {
    "person": ("people", "persons"),
    "foot": ("feet",),
    "tooth": ("teeth",),
    "goose": ("geese",),
    "die": ("dice",),
    "quiz": ("quizzes",),
    "lens": ("lenses",),
    "gas": ("gases", "gasses"),
    "bus": ("buses", "busses"),
    "canvas": ("canvases",),
    "atlas": ("atlases",),
    "christmas": ("christmases",),
    "ox": ("oxen",),
    "axe": ("axes",),
    "ax": ("axes",),
    "leaf": ("leaves",),
    "leave": ("leaves",),
    "beef": ("beefs",),
    "proof": ("proofs",),
    "belief": ("beliefs",),
    "handkerchief": ("handkerchiefs", "handkerchieves"),
    "scarf": ("scarves", "scarfs"),
    "hoof": ("hooves", "hoofs"),
    "dwarf": ("dwarves", "dwarfs"),
    "wharf": ("wharves", "wharfs"),
    "turf": ("turfs", "turves"),
    "staff": ("staffs", "staves"),
    "mother-in-law": ("mothers-in-law", "mother-in-laws"),
    "passer-by": ("passers-by", "passer-bys"),
    "passerby": ("passersby",),
    "runner-up": ("runners-up", "runner-ups"),
    "taxi": ("taxis", "taxies"),
    "iris": ("irises",),
    "penny": ("pennies", "pence"),
    "alga": ("algae",),
    "bacterium": ("bacteria",),
}  # fmt: skip

_ALIKE = frozenset(
    "sheep deer moose elk aircraft spacecraft watercraft hovercraft bison swine offspring livestock cattle poultry series species corps "
    "chassis news tennis barracks crossroads headquarters gallows spaghetti linguine police athletics gymnastics "
    "aerobics graffiti clothes clothing furniture equipment luggage jeans headphones earphones overalls rapids bleachers pajamas "
    "pyjamas glasses eyeglasses sunglasses spectacles trunks trousers slacks pliers shears breeches bloomers jodhpurs waders grits".split()
)
"""One form for one and for many; also of what comes in pairs, though the list may have a singular of another meaning (glass, trunk)."""

_BOTH_ALIKE = frozenset(
    "fish shrimp squid salmon trout cod bass tuna carp herring mackerel perch pike buffalo reindeer quail grouse snapper halibut".split()
)
"""With and without an ending."""

_HARD_CH = frozenset("stomach monarch patriarch matriarch eunuch loch epoch tech czech oligarch".split())
_OES = frozenset("potato tomato hero echo veto".split())
_OS_OR_OES = frozenset(
    "mango buffalo volcano tornado mosquito flamingo cargo domino halo zero motto grotto torpedo avocado desperado".split()
)
_NOT_MEN = (
    "human",
    "german",
    "roman",
    "norman",
    "shaman",
    "caiman",
    "cayman",
    "ottoman",
    "talisman",
    "walkman",
    "dragoman",
    "mussulman",
    "brahman",
)
_MEN_ALONE = frozenset("ramen specimen yemen semen acumen regimen cerumen foramen".split())
_LIKE_THEIR_END = ("woman", "child", "tooth", "mouse", "leaf", "wolf", "knife", "shelf", "wife", "fish", "foot", "craft")
"""Compounds take the plural of these: grandchild, bookshelf, penknife."""

_ONLY_IRREGULAR = ("f", "fe", "man", "tooth", "foot", "goose", "mouse", "louse", "child", "ox", "sis", "xis")
"""Nouns with these endings that are in WordNet's list of exceptions have no regular plural; the others (cactus, gecko) have both."""


@functools.cache
def plurals(noun: str) -> tuple[str, ...]:
    """The plurals of a noun in lower case, of one or more words with one blank between, the usual one first.

    Nouns that are the same for one and for many, and those that are plural only (scissors), have themselves.
    """
    before, word, after = _head(noun)
    return tuple(before + form + after for form in _plurals_of_word(word, noun))


@functools.cache
def singular(term: str) -> str:
    """The singular of a term in lower case, the term itself where it is not a plural or where that is not known.

    A listed noun that ends as plurals do, but of which no singular is listed, is itself ("shorts", "binoculars"). A word that no list
    has is taken for a plural unless it ends in a way in which few plurals do ("adidas") [choice].
    """
    before, word, after = _head(term)
    if word in _ALIKE:
        single = before + word.removesuffix("es") + after
        return single if before and single in known_nouns() else term  # wine glasses have a singular, glasses have not
    one = _singulars().get(word)
    if one is None:
        one = _regular_singular(word)
        listed = term in known_nouns() or word in known_nouns() or word in irregular_plurals()
        if listed and one not in known_nouns() and before + one + after not in known_nouns():
            return term
    return before + one + after


def _head(term: str) -> tuple[str, str, str]:
    """What stands before the word that has the plural, that word, and what stands after it, blanks included."""
    words = term.split(" ")
    place = next((k for k, word in enumerate(words) if k and word in _HEAD_BEFORE), len(words)) - 1
    return "".join(word + " " for word in words[:place]), words[place], "".join(" " + word for word in words[place + 1 :])


def _plurals_of_word(word: str, noun: str) -> tuple[str, ...]:
    if word in _OURS:
        return _OURS[word]
    if word in _ALIKE:
        return (word,)
    for end in _LIKE_THEIR_END:
        if word.endswith(end) and len(word) > len(end) + 1:
            return tuple(word[: -len(end)] + form for form in _plurals_of_word(end, end))
    regular = _regular_plurals(word, noun)
    if word in _BOTH_ALIKE:
        return (word, *regular)
    if word in irregular_plurals():
        found = irregular_plurals()[word]
        return found if word in found or word.endswith(_ONLY_IRREGULAR) else tuple(dict.fromkeys((*regular, *found)))
    if word.endswith("man") and not word.endswith(_NOT_MEN):
        return (word[:-3] + "men",)
    return regular


def _regular_plurals(word: str, noun: str) -> tuple[str, ...]:
    if word.endswith(("sis", "xis")) and word not in ("chassis",):
        return (word[:-2] + "es",)
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return (word,) if word in known_nouns() or noun in known_nouns() or singular(word) != word else (word + "es",)
    if word in _HARD_CH:
        return (word + "s",)
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (word + "es",)
    if word.endswith("y") and len(word) > 1 and (word[-2] not in _VOWELS or word.endswith("quy")):
        return (word[:-1] + "ies",)
    if word in _OES:
        return (word + "es",)
    if word in _OS_OR_OES:
        return (word + "s", word + "es")
    return (word + "s",)


@functools.cache
def _singulars() -> dict[str, str]:
    """Irregular plurals and their singular; where two nouns share one, the one of everyday speech."""
    found: dict[str, str] = {"leaves": "leaf", "axes": "axe", "crosses": "cross", "soles": "sole", "humans": "human"}
    for table in (_OURS, irregular_plurals()):
        for noun in sorted(table):
            for form in table[noun]:
                if form != noun:
                    found.setdefault(form, noun)
    return found


def _regular_singular(word: str) -> str:
    """The singular by rule; of two that are possible the one that is a known noun, else the likelier."""
    known = known_nouns()
    if word.endswith("men") and len(word) > 4 and word not in _MEN_ALONE:
        return word[:-3] + "man"
    for end in _LIKE_THEIR_END:
        for form in _plurals_of_word(end, end):
            if form != end and word.endswith(form) and len(word) > len(form) + 1 and word[: -len(form)] + end in known:
                return word[: -len(form)] + end
    if not word.endswith("s") or len(word) < 4 or word.endswith("ss"):
        return word
    stem = word[:-1]
    if word.endswith("ies"):
        return _likelier(word[:-3] + "y", stem) if len(word) > 4 else stem
    if word.endswith(("ches", "shes", "xes", "sses", "oes")):
        return _likelier(word[:-2], stem)
    if word.endswith("uses"):
        return _likelier(word[:-2], stem)
    if word.endswith(("ses", "zes")):
        return _likelier(stem, word[:-2])
    if word.endswith(("as", "is", "os", "us", "ics")):  # few plurals, and many names
        return stem if stem in known else word
    return stem


def _likelier(first: str, second: str) -> str:
    return second if second in known_nouns() and first not in known_nouns() else first


def forget() -> None:
    """Work with lists that were made anew since."""
    for cached in (plurals, singular, _singulars, nouns, known_nouns, irregular_plurals):
        cached.cache_clear()
