"""Vocabularies: which terms are one concept, in what order they may be given, and what no vocabulary can be made of."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovskit.core.concepts import lists
from ovskit.core.concepts.vocabulary import default_vocabulary, make_vocabulary, open_vocabulary, read_vocabulary
from ovskit.core.concepts.words import normalised
from ovskit.core.formats.labels.spaces import BUILT_IN, built_in
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

TERMS = ["man", "men", "tennis ball", "tennis balls", "Ball", "t-shirt", "T shirts", "dog's bed", "leaves", "axe", "axis"]
TERMS += ["sheep", "sofa, couch", "couch"]


@pytest.mark.parametrize("terms", [["man", "men"], ["men", "man"], ["Men"], ["MAN", "man "]])
def test_man_and_men_are_one_concept_in_either_order(terms: list[str]) -> None:
    vocabulary = make_vocabulary(terms, "terms")
    assert vocabulary.names == ("man",)
    assert dict(vocabulary.forms) == {"man": 0, "men": 0}


def test_a_name_is_the_singular_and_forms_are_all_inflected() -> None:
    vocabulary = make_vocabulary(["tennis balls", "person", "leaf"], "terms")
    assert vocabulary.names == ("leaf", "person", "tennis ball")
    assert {form for form, k in vocabulary.forms.items() if k == 1} == {"person", "people", "persons"}
    assert {form for form, k in vocabulary.forms.items() if k == 2} == {"tennis ball", "tennis balls", "tennis-ball", "tennis-balls"}


@given(st.permutations(TERMS))
def test_the_order_of_terms_makes_no_difference(terms: list[str]) -> None:
    assert make_vocabulary(terms, "terms") == make_vocabulary(TERMS, "terms")


@given(
    st.lists(st.text("aeimnsxy -'É", min_size=1, max_size=12).filter(lambda t: any(map(str.isalpha, t)) and t.count(" ") < 4), min_size=1)
)
@example(["a's-"])
def test_any_words_give_sorted_names_and_forms_that_are_normalised(terms: list[str]) -> None:
    terms = [term for term in terms if any(map(str.isalpha, normalised(term))) and normalised(term).count(" ") < 4] or ["a"]
    vocabulary = make_vocabulary(terms, "terms")
    assert list(vocabulary.names) == sorted(set(vocabulary.names))
    assert set(vocabulary.forms.values()) == set(range(len(vocabulary.names)))
    assert all(normalised(form) == form for form in vocabulary.forms)
    assert all(normalised(term) in vocabulary.forms for term in terms)
    shuffled = random.Random(1).sample(terms, len(terms))
    assert make_vocabulary(shuffled, "terms").hash == vocabulary.hash


def test_the_hash_tells_vocabularies_apart() -> None:
    hashes = [make_vocabulary(terms, "terms").hash for terms in (["cat"], ["cat", "dog"], ["cat, puss"], ["dog"])]
    assert len(set(hashes)) == 4
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in hashes)


def test_of_two_concepts_with_one_form_the_name_has_it() -> None:
    vocabulary = make_vocabulary(["glass", "glasses", "axis", "axe"], "terms")
    assert vocabulary.names[vocabulary.forms["glasses"]] == "glasses"
    assert vocabulary.names[vocabulary.forms["axes"]] == "axe"


def test_synonyms_follow_commas_and_yield_to_names() -> None:
    vocabulary = make_vocabulary(["sofa, couch, settee", "settee"], "terms")
    assert vocabulary.names == ("settee", "sofa")
    assert {form for form, k in vocabulary.forms.items() if k == 1} == {"sofa", "sofas", "couch", "couches"}


def test_a_hyphen_and_a_blank_are_one_term_but_not_beside_a_particle() -> None:
    assert make_vocabulary(["t-shirt", "t shirt"], "terms").names == ("t shirt",)
    assert set(make_vocabulary(["t-shirt"], "terms").forms) == {"t-shirt", "t shirt", "t-shirts", "t shirts"}
    assert set(make_vocabulary(["stand-in"], "terms").forms) == {"stand-in", "stand-ins"}


def test_unicode_composition_case_and_apostrophes_make_no_difference() -> None:
    ways = [["Café", "jack’s hat"], ["cafe\u0301", "Jack's  hat"], ["CAFÉ", "jack's hat"]]
    assert len({make_vocabulary(terms, "terms").hash for terms in ways}) == 1
    assert make_vocabulary(ways[0], "terms").names == ("café", "jack's hat")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "--vocabulary has no term"),
        (["cat", "12"], "--vocabulary has terms without a letter: '12'"),
        (["cat", "  "], "without a letter: ''"),
        (["cat", "..."], "without a letter: '...'"),
        (["cat,,dog"], "without a letter: ''"),
        (["one two three four five six"], "of more than 5 words: 'one two three four five six'"),
        ([f"a b c d e f{k}" for k in range(9)], "'a b c d e f4', …; remove"),
    ],
)
def test_terms_that_cannot_be_are_named(terms: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        make_vocabulary(terms, "--vocabulary")


def test_a_file_has_a_term_a_line_with_comments_a_mark_of_byte_order_and_ends_of_line_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "nouns.txt"
    path.write_bytes("\ufeff# animals\r\ncat, kitten\r\n\r\n  Dogs \r\nköter\r\n".encode())
    assert read_vocabulary(str(path)) == make_vocabulary(["cat, kitten", "dog", "dogs", "köter"], "terms")
    assert open_vocabulary(str(path)).names == ("cat", "dog", "köter")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cat\nk\xf6ter\n", r"nouns.txt:2: byte 0xf6 is not UTF-8"),
        (b"", "nouns.txt has no term"),
        (b"# only a comment\n", "nouns.txt has no term"),
        (b"cat\n7\n", "nouns.txt has terms without a letter: '7'"),
        (b"\xff\xfec\x00a\x00t\x00", "not UTF-8"),
        (b"a" * ((16 << 20) + 1), "larger than 16 MiB"),
    ],
)
def test_bad_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "nouns.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_vocabulary(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.txt"), str(tmp_path), "no\0file.txt"):
        with pytest.raises(MissingInputError, match="cannot read"):
            read_vocabulary(name)
        with pytest.raises((MissingInputError, UsageError)):
            open_vocabulary(name)


def test_nothing_opens_the_default_and_a_name_or_a_list_a_label_space() -> None:
    assert open_vocabulary(None) is default_vocabulary()
    assert open_vocabulary("cats,dog").names == ("cat", "dog")
    with pytest.raises(UsageError, match="--vocabulary: unknown label space 'vok-20'"):
        open_vocabulary("vok-20")


@pytest.mark.parametrize("name", BUILT_IN)
def test_label_spaces_count_without_their_background(name: str) -> None:
    space = built_in(name)
    vocabulary = open_vocabulary(name)
    classes = [c for c in space.classes if c.id != space.background]
    assert 0 < len(vocabulary.names) <= len(classes)
    assert all(normalised(word) in vocabulary.forms for c in classes for word in c.words if normalised(word).count(" ") < 4)


def test_a_label_space_in_a_file_counts_without_its_background(tmp_path: Path) -> None:
    path = tmp_path / "pets.json"
    path.write_text(
        '{"format": "ovskit.labels/1", "name": "pets", "background": 0, "classes": [{"id": 0, "name": "rest"}, '
        '{"id": 1, "name": "cats", "synonyms": ["kitten", "a very small and young cat"]}]}'
    )
    assert dict(open_vocabulary(str(path)).forms) == {"cat": 0, "cats": 0, "kitten": 0, "kittens": 0}


def test_the_default_has_what_photographs_have_and_not_what_captions_only_say() -> None:
    vocabulary = default_vocabulary()
    assert 1000 < len(vocabulary.names) < 1700
    assert {"person", "man", "dog", "tree", "sky", "field", "table", "park", "tennis ball", "giraffe", "toaster"} <= set(vocabulary.names)
    assert not {"young", "white", "stand", "small", "behind", "a", "in", "as", "he", "orange", "it", "down"} & set(vocabulary.forms)
    assert vocabulary == make_vocabulary(reversed(lists.default_terms()), "terms")
    assert set(lists.added()).isdisjoint(lists.stopped())


def test_the_lists_have_their_notice_and_no_time_in_their_bytes() -> None:
    folder = Path(lists.__file__).parent / "data"
    for name in ("nouns.txt.gz", "irregular.txt.gz"):
        data = (folder / name).read_bytes()
        assert data[4:8] == bytes(4), "the time of a gzip file"
        assert gzip.decompress(data).startswith(b"# NOTICE: derived from WordNet 3.0")
    assert (folder / "vocabulary.txt").read_text("utf-8").startswith("# NOTICE: derived from WordNet 3.0")
    assert "Princeton University" in (folder / "WORDNET.txt").read_text("utf-8")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 270_000
