"""The nouns and verbs of a caption, which S-Seg learns from alone, by an optional tagger.

The tagger is textblob's English one, whose lexicon comes with it: nothing is downloaded. It is wrong now and then ("drinking" is a noun
to it), and knows English only.
"""

from __future__ import annotations

from collections.abc import Callable

from ovskit.core.runtime.errors import UsageError

_KEPT = ("NN", "VB")  # the Penn Treebank's tags of nouns and verbs begin so


def nouns_and_verbs() -> Callable[[str], str]:
    """A function from a caption to its nouns and verbs, in their order with one blank between them; a caption without any is kept whole.

    It may be called from several threads at once. Raises UsageError where the tagger is not installed.
    """
    try:
        from textblob.en import tag
    except ImportError:
        raise UsageError(
            "words=nouns,verbs: captions are tagged with textblob, which is not installed: pip install 'ovskit[captions]'"
        ) from None
    tag("a dog runs")  # reads the lexicon, which threads are not to do at once

    def keep(caption: str) -> str:
        kept = [word for word, kind in tag(caption) if kind.startswith(_KEPT)]
        return " ".join(kept) or caption

    return keep
