"""The nouns that captions name, with how many captions do: a vocabulary from anybody's captions, without a tagger.

Candidates are the nouns that ship (``lists.nouns``: WordNet's, whose first sense is of a thing or stuff that can be seen) and those of the
add list, without those of the stop list.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

from ovskit.core.concepts.lists import added, nouns, stopped
from ovskit.core.concepts.matching import Matcher
from ovskit.core.concepts.vocabulary import Vocabulary, make_vocabulary
from ovskit.core.runtime.errors import UsageError


def mine(captions: Iterable[str], *, min_count: int = 5) -> list[tuple[str, int]]:
    """Nouns that at least ``min_count`` captions name, and how many do; most frequent first, ties by name.

    A caption counts once however often it has a noun, and the longest match counts: "tennis ball" is not a ball. Raises UsageError for a
    ``min_count`` below 1.
    """
    if min_count < 1:
        raise UsageError(f"a noun that {min_count} captions name: give a number from 1")
    vocabulary = _candidates()
    matcher = Matcher(vocabulary)
    counts: Counter[int] = Counter()
    for caption in captions:
        counts.update(matcher.concepts_of(caption))
    found = [(vocabulary.names[concept], count) for concept, count in counts.items() if count >= min_count]
    return sorted(found, key=lambda noun: (-noun[1], noun[0]))


@functools.cache
def _candidates() -> Vocabulary:
    other_words = {word.strip() for term in added() for word in term.split(",")[1:]}
    return make_vocabulary((nouns() - other_words - stopped()).union(added()), "the list of nouns")
