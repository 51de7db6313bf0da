"""Plurals and singulars of everyday nouns, against a table written by hand."""

from __future__ import annotations

import pytest

from ovskit.core.concepts.inflection import plurals, singular
from ovskit.core.concepts.lists import nouns
from tests.concepts.everyday_nouns import PLURALS

OF_TWO_NOUNS = {"glass": "glasses", "axis": "axe", "french fry": "french fries"}
"""Their plurals are also a noun, or the plural of one, that captions have more often."""


def test_the_table_has_enough_irregular_nouns() -> None:
    assert sum(forms[0] not in (noun + "s", noun + "es") for noun, forms in PLURALS.items()) >= 60


@pytest.mark.parametrize("noun", PLURALS)
def test_the_usual_plural_is_there_and_no_wrong_one(noun: str) -> None:
    forms = plurals(noun)
    assert PLURALS[noun][0] in forms
    assert set(forms) <= set(PLURALS[noun])
    assert len(set(forms)) == len(forms)


@pytest.mark.parametrize("noun", PLURALS)
def test_a_plural_leads_back_to_its_singular(noun: str) -> None:
    assert singular(PLURALS[noun][0]) == OF_TWO_NOUNS.get(noun, noun)
    assert singular(noun) == noun


@pytest.mark.parametrize(
    ("term", "one"),
    [
        ("tennis balls", "tennis ball"),
        ("cups of tea", "cup of tea"),
        ("men in black", "man in black"),
        ("wine glasses", "wine glass"),
        ("swim trunks", "swim trunks"),
        ("arms", "arm"),  # WordNet has arms, weapons
        ("fields", "field"),
        ("videos", "video"),
        ("movies", "movie"),
        ("specimen", "specimen"),
        ("blorfs", "blorf"),  # not in any list
        ("adidas", "adidas"),
    ],
)
def test_singulars_of_several_words_and_of_words_that_look_like_plurals(term: str, one: str) -> None:
    assert singular(term) == one


def test_a_preposition_has_the_plural_before_it() -> None:
    assert plurals("cup of tea") == ("cups of tea",)
    assert plurals("man in black") == ("men in black",)


def test_single_words_of_the_list_come_back_from_their_plural() -> None:
    """The nouns are ordinary ones: neither Latin nor ending in s. One whose plural leads elsewhere shares it with another noun."""
    ordinary = [word for word in sorted(nouns()) if word.isalpha() and word.isascii() and len(word) > 3 and not word.endswith("s")]
    lost = [word for word in ordinary if singular(plurals(word)[0]) != word]
    assert len(ordinary) > 15_000
    assert len(lost) < 0.005 * len(ordinary)
