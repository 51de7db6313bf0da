"""Which concepts of a vocabulary captions name: whole tokens, the longest match first, from left to right, without overlap.

Where a tennis ball is a concept, "a tennis ball" names it and not a ball. Substrings count for nothing: "man" is a substring of 9,987 of
Flickr8k's captions and a word of 8,055.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from ovskit.core.concepts.vocabulary import Vocabulary
from ovskit.core.concepts.words import tokens_of
from ovskit.core.records import Int32, Int64


class Matcher:
    """Finds a vocabulary's concepts in captions."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._forms = dict(vocabulary.forms)
        self._longest: dict[str, int] = {}
        """First tokens of forms, and how many tokens the longest form that begins so has."""
        for form in self._forms:
            first, length = form.partition(" ")[0], form.count(" ") + 1
            self._longest[first] = max(length, self._longest.get(first, 0))

    def concepts_of(self, caption: str) -> tuple[int, ...]:
        """Places in ``vocabulary.names`` of the concepts that the caption names, ascending, each once.

        At each token the longest form that begins there is taken, and the search goes on behind it.
        """
        tokens = tokens_of(caption)
        forms, longest = self._forms, self._longest
        found: set[int] = set()
        behind = 0
        for k, token in enumerate(tokens):
            if token not in longest or k < behind:
                continue
            for length in range(longest[token], 0, -1):  # a slice that is too long for the caption is only looked up again
                concept = forms.get(token if length == 1 else " ".join(tokens[k : k + length]))
                if concept is not None:
                    found.add(concept)
                    behind = k + length
                    break
        return tuple(sorted(found))

    def many(self, captions: Iterable[str]) -> tuple[Int32, Int64]:
        """``concepts_of`` of each caption: their ids one after the other, int32, and int64 places where each caption's begin.

        The second array has one entry more than there are captions: ``ids[begin[k] : begin[k + 1]]`` are those of caption k.
        """
        ids, begin = array("i"), array("q", [0])
        for caption in captions:
            ids.extend(self.concepts_of(caption))
            begin.append(len(ids))
        return np.array(ids, np.int32), np.array(begin, np.int64)
