"""Concepts in captions: how many captions a second are matched, what the default vocabulary finds, and how right plurals are.

Captions are the 40,455 of captions/flickr8k_text_only.jsonl in $OVSKIT_TEST_DATA, or --captions. Matching runs on one thread; captions a
second are by CPU time, the best of several repetitions, and the target is 20,000. Before, some are compared with the slow reference of
the tests.

Plurals are those of tests/concepts/everyday_nouns.py, written by hand: how many nouns lack the usual plural, have a wrong one beside it,
and how many plurals do not lead back to their noun. The first table was in sight when the rules were written, the second was not.
lemminflect is measured beside ours if it is installed (pip install lemminflect).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import DATA
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import timed
from harness.report import percent, show, write_json

from ovskit.core.concepts.inflection import plurals, singular
from ovskit.core.concepts.lists import nouns as nouns_that_ship
from ovskit.core.concepts.matching import Matcher
from ovskit.core.concepts.mining import mine
from ovskit.core.concepts.vocabulary import Vocabulary, make_vocabulary, open_vocabulary
from tests.concepts.everyday_nouns import MORE_PLURALS, PLURALS
from tests.reference import concepts as reference


def captions_in(path: Path) -> list[str]:
    """All captions of a JSON-lines file."""
    return [caption for line in path.read_text("utf-8").splitlines() for caption in json.loads(line)["captions"]]


def speed(captions: Sequence[str], vocabulary: Vocabulary, repeat: int) -> dict[str, Any]:
    """Captions a second, and what was found."""
    matcher = Matcher(vocabulary)
    checked = 400_000 // len(vocabulary.forms)  # the reference looks at every form at every token
    for caption in captions[:: max(1, len(captions) // min(300, checked))]:
        assert list(matcher.concepts_of(caption)) == reference.concepts(caption, vocabulary.forms), caption
    timing = timed(lambda: matcher.many(captions), repeat, clock=time.process_time)
    ids, begin = timing.result
    counts = begin[1:] - begin[:-1]
    return {
        "concepts": len(vocabulary.names),
        "forms": len(vocabulary.forms),
        "captions_per_s": len(captions) / timing.least,
        "concepts_per_caption": len(ids) / len(captions),
        "captions_without": float((counts == 0).mean()),
        "concepts_seen": len(set(ids.tolist())),
        "most_frequent": [vocabulary.names[k] for k, _ in Counter(ids.tolist()).most_common(12)],
    }


def right(plural: Callable[[str], Sequence[str]], single: Callable[[str], str], nouns: dict[str, list[str]]) -> dict[str, int]:
    """Counts over a table of everyday nouns. A noun itself is not a wrong plural of it."""
    return {
        "without_usual": sum(forms[0] not in plural(noun) for noun, forms in nouns.items()),
        "with_wrong": sum(bool(set(plural(noun)) - {*forms, noun}) for noun, forms in nouns.items()),
        "not_back": sum(single(forms[0]) != noun for noun, forms in nouns.items()),
    }


def by_lemminflect(nouns: dict[str, list[str]]) -> dict[str, int] | None:
    """The same by lemminflect, which sees the last word of a term; None if it is not installed."""
    try:
        from lemminflect import getInflection, getLemma
    except ImportError:
        return None

    def plural(noun: str) -> list[str]:
        before, _, word = noun.rpartition(" ")
        return [f"{before} {form}".strip() for form in getInflection(word, "NNS")]

    def single(term: str) -> str:
        before, _, word = term.rpartition(" ")
        return f"{before} {getLemma(word, 'NOUN')[0]}".strip()

    return right(plural, single, nouns)


def main() -> None:
    parser = bench_parser(__doc__, repeat=5, json=True)
    default = DATA / "captions" / "flickr8k_text_only.jsonl"
    parser.add_argument("--captions", type=Path, default=default, metavar="FILE", help="captions [captions/flickr8k_text_only.jsonl]")
    arguments = parser.parse_args()
    if not arguments.captions.is_file():
        parser.error(f"no file {arguments.captions}: name one with --captions, or set OVSKIT_TEST_DATA")
    captions = captions_in(arguments.captions)
    vocabularies = {
        "default": open_vocabulary(None),
        "coco-object-81": open_vocabulary("coco-object-81"),
        "one term": make_vocabulary(["dog"], "one term"),
        "all nouns that ship": make_vocabulary(nouns_that_ship(), "all nouns"),
    }
    rows = {name: speed(captions, vocabulary, arguments.repeat) for name, vocabulary in vocabularies.items()}
    cells = [
        (
            name,
            row["concepts"],
            row["forms"],
            f"{row['captions_per_s']:,.0f}",
            f"{row['concepts_per_caption']:.2f}",
            percent(row["captions_without"], ".2f"),
            row["concepts_seen"],
        )
        for name, row in rows.items()
    ]
    title = f"{len(captions)} captions, one thread, CPU time, best of {arguments.repeat}"
    columns = ("vocabulary", "concepts", "forms", "captions/s", "concepts/caption", "% without any", "concepts seen")
    most = rows["default"]["most_frequent"]
    mining = timed(lambda: mine(captions), 2, clock=time.process_time)
    show(title, columns, cells, f"most frequent: {', '.join(most)}", f"mine: {len(mining.result)} nouns in {mining.least:.1f} s")
    tables = {"first": PLURALS, "second": MORE_PLURALS}
    inflected = {f"ours, {name}": right(plurals, singular, table) for name, table in tables.items()}
    inflected |= {f"lemminflect, {name}": found for name, table in tables.items() if (found := by_lemminflect(table))}
    counts = [(name, *found.values()) for name, found in inflected.items()]
    sizes = " and ".join(str(len(table)) for table in tables.values())
    show(f"plurals of {sizes} everyday nouns", ("", "without the usual", "with a wrong one", "do not lead back"), counts)
    found = {"bench": "concepts", **host("ovskit", "numpy", "lemminflect"), "captions": len(captions), "rows": rows, "inflected": inflected}
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()
