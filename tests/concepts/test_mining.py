"""Nouns mined from captions: counts against a plain count, and the list that ships against the captions it was mined from."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from ovskit.core.concepts import lists
from ovskit.core.concepts.mining import mine
from ovskit.core.runtime.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = Path(os.environ.get("OVSKIT_TEST_DATA", "")) / "captions" / "flickr8k_text_only.jsonl"


def test_captions_are_counted_not_words_and_plurals_are_their_singular() -> None:
    captions = ["a dog and two dogs", "the zebra's stripes", "zebras", "Dog, cat", "a tennis ball", "tennis balls", "ball"]
    assert mine(captions, min_count=1) == [("dog", 2), ("tennis ball", 2), ("zebra", 2), ("ball", 1), ("cat", 1), ("stripe", 1)]
    assert mine(captions, min_count=2) == [("dog", 2), ("tennis ball", 2), ("zebra", 2)]
    assert mine([], min_count=1) == []


def test_the_stop_list_and_the_add_list_are_applied() -> None:
    captions = ["a young white man stands behind a small person in the field as he can"] * 5
    assert mine(captions) == [("field", 5), ("man", 5), ("person", 5)]
    assert mine(captions[:4]) == []


def test_a_word_of_the_add_list_counts_for_its_term() -> None:
    assert mine(["a tee shirt", "a T-shirt", "tshirts"], min_count=1) == [("t-shirt", 3)]


def test_no_stopped_term_is_ever_mined() -> None:
    found = [name for name, _ in mine([f"the {term} there" for term in sorted(lists.stopped())], min_count=1)]
    assert not lists.stopped().intersection(found)


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="from 1"):
        mine(["dog"], min_count=0)


@pytest.mark.skipif(not os.environ.get("OVSKIT_TEST_DATA") or not CAPTIONS.is_file(), reason="needs the captions of OVSKIT_TEST_DATA")
def test_the_list_that_ships_is_what_the_captions_and_the_lists_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    spec = importlib.util.spec_from_file_location("make_vocabulary", ROOT / "bench" / "make_vocabulary.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_vocabulary", maker)
    spec.loader.exec_module(maker)
    captions = [caption for line in CAPTIONS.read_text("utf-8").splitlines() for caption in json.loads(line)["captions"]]
    assert maker.vocabulary_text(captions, 5) == (maker.FOLDER / "vocabulary.txt").read_text("utf-8")
