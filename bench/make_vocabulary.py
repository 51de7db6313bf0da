"""Make the lists of words in core/concepts/data anew, from WordNet 3.0 and a file of captions.

nouns.txt.gz: noun lemmas of 1 to 4 words whose first sense (the most frequent one, by the order in index.noun) is in one of WordNet's
lexicographer files of things and stuff that can be seen: animal, artifact, body, food, object, person, phenomenon, plant, substance.
Left out are
- named individuals (instances, such as mountains and famous people), and names of ranks in biology ("genus Ursus");
- Latin binomials (a capitalised first word that is a genus), lemmas of which every word is capitalised, and single capitalised words
  but for artifacts and food;
- possessives ("men's");
- words that WordNet's tagged texts (cntlist.rev) have as a verb, adjective or adverb at least 3 times and more than twice as often as
  they have them as a noun ("stand", "young").

irregular.txt.gz: the nouns of noun.exc, WordNet's list of exceptions, with their plurals; and nouns whose plural the rules of
core/concepts/inflection.py do not lead back to them (movies), or that only look like a plural (news).

vocabulary.txt: what `mine` finds in the captions at --min-count, with stop.txt and add.txt, and all of add.txt. These two are written
by hand.

Files of WordNet are data.noun, index.noun, noun.exc and cntlist.rev; Debian's package wordnet-base has them. Captions are JSON lines
with "captions". The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import DATA, ROOT

from ovskit.core.concepts import inflection, lists, mining
from ovskit.core.concepts.inflection import plurals, singular
from ovskit.core.concepts.vocabulary import make_vocabulary

FOLDER = ROOT / "core" / "concepts" / "data"
NOTICE = "# NOTICE: derived from WordNet 3.0, Copyright 2006 by Princeton University: see WORDNET.txt.\n"
SEEN = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 19: "phenomenon", 20: "plant", 27: "substance"}
UNSEEN = {7, 9, 22, 26}  # attribute, cognition, process, state
ALIVE = {5, 20}
MADE = {6, 13}
RANKS = {"genus", "family", "order", "class", "suborder", "subclass", "superfamily", "subfamily", "phylum", "kingdom", "tribe", "division"}


@dataclass(frozen=True)
class WordNet:
    """What of WordNet is used here.

    ``senses``: offsets of a lemma's synsets, the most frequent first; ``file_of``: the number of a synset's lexicographer file;
    ``individuals``: synsets that are instances; ``spelling``: of a lemma in a synset; ``as_noun`` and ``otherwise``: how often tagged texts
    have a lemma as a noun and as another part of speech.
    """

    senses: dict[str, list[str]]
    file_of: dict[str, int]
    individuals: set[str]
    spelling: dict[tuple[str, str], str]
    as_noun: Counter[str]
    otherwise: Counter[str]

    def rarely_a_noun(self, lemma: str) -> bool:
        return self.otherwise[lemma] >= 3 and self.otherwise[lemma] > 2 * self.as_noun[lemma]


def read_wordnet(folder: Path) -> WordNet:
    """The nouns of WordNet; format: man page wndb(5WN) and cntlist(5WN)."""
    senses: dict[str, list[str]] = {}
    file_of: dict[str, int] = {}
    individuals: set[str] = set()
    spelling: dict[tuple[str, str], str] = {}
    for line in _entries(folder / "data.noun"):
        fields = line.split(" ")
        synset, count = fields[0], int(fields[3], 16)
        file_of[synset] = int(fields[1])
        if "@i" in fields:
            individuals.add(synset)
        for word in fields[4 : 4 + 2 * count : 2]:
            spelling[word.lower(), synset] = word
    for line in _entries(folder / "index.noun"):
        fields = line.split()
        senses[fields[0]] = fields[4 + int(fields[3]) + 2 :]
    as_noun: Counter[str] = Counter()
    otherwise: Counter[str] = Counter()
    for line in (folder / "cntlist.rev").read_text("latin-1").splitlines():
        key, _, count = line.split()
        lemma, _, sense = key.partition("%")
        (as_noun if sense.startswith("1:") else otherwise)[lemma] += int(count)
    return WordNet(senses, file_of, individuals, spelling, as_noun, otherwise)


def nouns_that_can_be_seen(wordnet: WordNet) -> list[str]:
    """The lemmas that the docstring of this file describes, sorted, in lower case with blanks."""
    genera = {
        lemma
        for lemma, synsets in wordnet.senses.items()
        if "_" not in lemma and any(wordnet.file_of[one] in ALIVE and wordnet.spelling[lemma, one] != lemma for one in synsets)
    }
    kept = []
    for lemma, synsets in wordnet.senses.items():
        first = synsets[0]
        words, spelled = lemma.split("_"), wordnet.spelling[lemma, first]
        file = wordnet.file_of[first]
        if file not in SEEN or len(words) > 4 or first in wordnet.individuals or not any(map(str.isalpha, lemma)):
            continue
        if lemma.endswith("'s") or wordnet.rarely_a_noun(lemma):
            continue
        if spelled != lemma:
            capitals = [word[0].isupper() for word in spelled.split("_")]
            if all(capitals) and not (len(words) == 1 and file in MADE):
                continue
            if words[0] in RANKS or (file in ALIVE and capitals[0] and words[0] in genera):
                continue
        kept.append(lemma.replace("_", " "))
    return sorted(kept)


def irregular_plurals(folder: Path, wordnet: WordNet) -> dict[str, list[str]]:
    """Nouns in lower case and their plurals in noun.exc, without those that are better known as a verb (dive, of diva)."""
    found: dict[str, list[str]] = {}
    for line in (folder / "noun.exc").read_text("latin-1").splitlines():
        form, *lemmas = line.split()
        for lemma in lemmas:
            if "_" not in lemma and lemma in wordnet.senses and form != lemma and wordnet.otherwise[form] < 3:
                found.setdefault(lemma, []).append(form)
    return found


def hard_to_undo(wordnet: WordNet) -> dict[str, list[str]]:
    """Nouns in lower case whose plural the rules do not lead back to them, with that plural, and nouns that only look like a plural.

    The rules are those of ``core/concepts/inflection.py`` with the lists that are there.
    """
    found: dict[str, list[str]] = {}
    for lemma, synsets in wordnet.senses.items():
        unlikely = wordnet.file_of[synsets[0]] in UNSEEN
        if unlikely or not lemma.isalpha() or len(lemma) < 4 or all(wordnet.spelling[lemma, one] != lemma for one in synsets):
            continue
        one = singular(lemma)
        if one != lemma:
            if one not in wordnet.senses:
                found[lemma] = [lemma]
            continue
        usual = plurals(lemma)[0]
        if singular(usual) != lemma and usual not in wordnet.senses:
            found[lemma] = [usual]
    return found


def both(one: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The plurals of either table."""
    return {noun: list(dict.fromkeys([*one.get(noun, []), *other.get(noun, [])])) for noun in [*one, *other]}


def lines_of(table: Mapping[str, list[str]]) -> list[str]:
    return [" ".join([noun, *forms]) for noun, forms in sorted(table.items())]


def captions_of(path: Path) -> Iterable[str]:
    for line in path.read_text("utf-8").splitlines():
        yield from json.loads(line)["captions"]


def packed(lines: Iterable[str]) -> bytes:
    """The list as a gzip file without a time and a name."""
    made = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=made, compresslevel=9, mtime=0) as file:
        file.write((NOTICE + "".join(line + "\n" for line in lines)).encode("utf-8"))
    return made.getvalue()


def vocabulary_text(captions: Iterable[str], min_count: int) -> str:
    """The default vocabulary as a file: the terms that were mined, and all that are added, with their other words."""
    mined = [name for name, _ in mining.mine(captions, min_count=min_count)]
    whole = make_vocabulary([*mined, *lists.added()], "the lists")
    others = dict(term.split(",", 1) for term in lists.added() if "," in term)
    terms = [name + ("," + others[name] if name in others else "") for name in whole.names]
    return NOTICE + "# The default vocabulary, made by bench/make_vocabulary.py.\n" + "".join(term + "\n" for term in terms)


def _entries(path: Path) -> Iterable[str]:
    """The lines of a file of WordNet after its licence, which is indented."""
    return (line for line in path.read_text("latin-1").splitlines() if not line.startswith("  "))


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--wordnet", type=Path, metavar="FOLDER", help="WordNet's files; without it, nouns and plurals stay as they are")
    default = DATA / "captions" / "flickr8k_text_only.jsonl"
    parser.add_argument(
        "--captions", type=Path, default=default, metavar="FILE", help="captions to mine [captions/flickr8k_text_only.jsonl]"
    )
    parser.add_argument("--min-count", type=int, default=5, help="keep nouns that so many captions have [5]")
    arguments = parser.parse_args()
    if arguments.wordnet:
        wordnet = read_wordnet(arguments.wordnet)
        (FOLDER / "nouns.txt.gz").write_bytes(packed(nouns_that_can_be_seen(wordnet)))
        table = irregular_plurals(arguments.wordnet, wordnet)
        (FOLDER / "irregular.txt.gz").write_bytes(packed(lines_of(table)))
        (FOLDER / "irregular.txt.gz").write_bytes(packed(lines_of(both(hard_to_undo(wordnet), table))))
        inflection.forget()
    (FOLDER / "vocabulary.txt").write_text(vocabulary_text(captions_of(arguments.captions), arguments.min_count), "utf-8")
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
