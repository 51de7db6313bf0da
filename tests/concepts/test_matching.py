"""Concepts in captions: whole tokens, the longest match, and a slow reference for everything together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.concepts.matching import Matcher
from ovskit.core.concepts.vocabulary import default_vocabulary, make_vocabulary
from ovskit.core.concepts.words import tokens_of
from tests.reference import concepts as reference

TERMS = [
    "man", "woman", "ball", "tennis ball", "tennis ball machine", "court", "t-shirt", "hot dog", "dog bun", "dog", "bun",
    "merry-go-round", "cup of tea", "leaf", "café", "3d printer", "bull's eye", "stand-in", "straße",
]  # fmt: skip
VOCABULARY = make_vocabulary(TERMS, "terms")
MATCHER = Matcher(VOCABULARY)


def named(caption: str) -> list[str]:
    return [VOCABULARY.names[k] for k in MATCHER.concepts_of(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A woman.", ["woman"]),
        ("a wo-man and a man-woman, manmade", []),
        ("Two MEN and a man", ["man"]),
        ("a tennis ball on a court", ["court", "tennis ball"]),
        ("a tennis ball and a ball", ["ball", "tennis ball"]),
        ("tennis ball machines", ["tennis ball machine"]),
        ("tennis balls machine", ["tennis ball"]),
        ("a hot dog bun", ["bun", "hot dog"]),  # from left to right: not "hot" and "dog bun"
        ("dog bun", ["dog bun"]),
        ("dog dog buns", ["dog", "dog bun"]),
        ("the dog's leash, the dogs' leash, the man’s", ["dog", "man"]),
        ("'dog' \"dog\" ‘dog’", ["dog"]),
        ("a t-shirt", ["t-shirt"]),
        ("t shirts", ["t-shirt"]),
        ("a T‑shirt", ["t-shirt"]),  # U+2011 is not a hyphen, but "t shirt" is a form
        ("a hot‑dog", ["hot dog"]),
        ("tshirt", []),
        ("merry-go-round; merry go rounds", ["merry-go-round"]),
        ("cups of tea", ["cup of tea"]),
        ("autumn leaves", ["leaf"]),
        ("CAFÉS", ["café"]),
        ("cafe\u0301", ["café"]),
        ("STRASSE", ["straße"]),
        ("a 3D printer", ["3d printer"]),
        ("3 d printers", []),
        ("a bull’s eye", ["bull's eye"]),
        ("they stand in line", []),
        ("dog_man", ["dog", "man"]),
        ("dog\nman\tball", ["ball", "dog", "man"]),
        ("", []),
        ("…!?", []),
        ("- ' -dog- 'man'", ["dog", "man"]),
    ],
)
def test_what_a_caption_names(caption: str, expected: list[str]) -> None:
    assert sorted(named(caption)) == sorted(expected)
    assert list(MATCHER.concepts_of(caption)) == reference.concepts(caption, VOCABULARY.forms)


def test_ids_ascend_without_repeats() -> None:
    found = MATCHER.concepts_of("woman man dog man ball woman")
    assert list(found) == sorted(set(found))
    assert len(found) == 4


WORDS = sorted(
    {word for term in TERMS for word in term.replace("-", " ").split()} | {"men", "leaves", "dog's", "of", "a", "wo-man", "balls", "cups"}
)
CAPTIONS = st.lists(st.sampled_from(WORDS), max_size=12).flatmap(
    lambda words: st.lists(st.sampled_from([" ", "  ", "-", ", ", "’", "'s ", "_", "\n"]), min_size=len(words), max_size=len(words)).map(
        lambda joints: "".join(word + joint for word, joint in zip(words, joints, strict=True))
    )
)


@given(CAPTIONS)
def test_as_the_reference_finds_it(caption: str) -> None:
    assert list(MATCHER.concepts_of(caption)) == reference.concepts(caption, VOCABULARY.forms)


@given(st.text(max_size=60))
def test_any_text_is_cut_as_the_reference_cuts_it(text: str) -> None:
    assert tokens_of(text) == reference.words(text)


@given(st.permutations(TERMS), st.lists(CAPTIONS, max_size=4))
def test_the_order_of_the_vocabulary_makes_no_difference(terms: list[str], captions: list[str]) -> None:
    other = Matcher(make_vocabulary(terms, "terms"))
    assert [other.concepts_of(caption) for caption in captions] == [MATCHER.concepts_of(caption) for caption in captions]


@given(st.lists(CAPTIONS, max_size=6))
def test_many_is_each_one_after_the_other(captions: list[str]) -> None:
    ids, begin = MATCHER.many(iter(captions))
    assert ids.dtype == np.int32
    assert begin.dtype == np.int64
    assert len(begin) == len(captions) + 1
    parts = [tuple(ids[begin[k] : begin[k + 1]].tolist()) for k in range(len(captions))]
    assert parts == [MATCHER.concepts_of(caption) for caption in captions]


def test_a_very_long_caption() -> None:
    caption = "a dog and " * 100_000 + "a man" + "x" * 1_000_000
    assert named(caption) == ["dog"]
    assert named("man " * 50_000) == ["man"]


def test_a_vocabulary_of_one_term() -> None:
    matcher = Matcher(make_vocabulary(["dog"], "terms"))
    assert matcher.concepts_of("two dogs and a hot-dog stand") == (0,)
    assert matcher.concepts_of("a cat") == ()


def test_every_form_of_the_default_finds_its_concept() -> None:
    vocabulary = default_vocabulary()
    matcher = Matcher(vocabulary)
    wrong = [form for form, concept in vocabulary.forms.items() if matcher.concepts_of(f"There is, {form.upper()}.") != (concept,)]
    assert wrong == []


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man with a red helmet on a small moped on a dirt road.", {"man", "helmet", "moped", "dirt", "road"}),
        ("Two young girls stand behind a white fence in the park", {"girl", "fence", "park"}),
        ("People watch as he jumps down the stairs", {"person", "stair"}),
    ],
)
def test_the_default_on_captions(caption: str, expected: set[str]) -> None:
    vocabulary = default_vocabulary()
    assert {vocabulary.names[k] for k in Matcher(vocabulary).concepts_of(caption)} == expected
