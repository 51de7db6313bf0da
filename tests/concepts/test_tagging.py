"""Nouns and verbs of captions, with a stand-in for the tagger, which need not be installed."""

from __future__ import annotations

import sys
import types

import pytest

from ovskit.core.concepts.tagging import nouns_and_verbs
from ovskit.core.runtime.errors import UsageError

KINDS = {"dog": "NN", "dogs": "NNS", "runs": "VBZ", "riding": "VBG", "red": "JJ", "a": "DT"}


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("textblob.en")
    module.tag = lambda text: [(word, KINDS.get(word, "IN")) for word in text.split()]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "textblob", types.ModuleType("textblob"))
    monkeypatch.setitem(sys.modules, "textblob.en", module)


def test_nouns_and_verbs_stay_in_their_order(tagger: None) -> None:
    keep = nouns_and_verbs()
    assert keep("a red dog runs with dogs riding") == "dog runs dogs riding"


def test_a_caption_without_any_is_whole(tagger: None) -> None:
    assert nouns_and_verbs()("a red of") == "a red of"


def test_without_a_tagger_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textblob", None)
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(UsageError, match=r"textblob, which is not installed: pip install 'ovskit\[captions\]'"):
        nouns_and_verbs()
