"""Concept curation on photographs with five captions: the first is the caption, the other four tell which concepts it misses.

Sets: ``captions`` (114 photographs, most of COCO) and ``flickr8k`` (4,400 of Flickr8k). Each photograph retrieves within its set, from
first captions alone; what is ranked never is a concept that its own first caption names. *recall@k*: the share of the missed concepts that
are among the first k, *precision@k*: hits divided by k, *uncommon@5*: recall@5 of missed concepts that less than 1 % of the set's first
captions name. Means over the photographs that miss such concepts, 95 % intervals by bootstrap over them. A concept that captions 2 to 5 do
not name either counts as wrong, also where the photograph shows it; and another word for what the first caption says, person for man,
counts as missed. So compare within a table only.

Without ``--concept-rows`` there is no text tower, and what stands in for one is weak: the row of a concept is the mean image row of
photographs whose first caption names it, and the row of a caption is the mean of its concepts' rows. These photographs are never among
those that are being curated: flickr8k is curated in two halves, each with rows from the other half and from captions, and captions with
rows from flickr8k. Concepts of which there is no row cannot be found. The built-in extractor knows textures and colours rather than
things, and many of its cosines are below 0, where Eq. 7 is clamped; a row of the tables is of cosines that are raised. The mean of many
photographs is nearer to any photograph than that of a few, so alignment prefers frequent concepts, which Eq. 7 divides out: hence tables
with few photographs for every concept. All this tells whether the machinery does any good with what needs no download; it is no
measurement of CoCu, which asks for CLIP.

*language-driven*: of the concepts of the 3 captions nearest to the photograph, the best by alignment with it. *naive*: of those of its
neighbours, the best by alignment. *guided*: by CoCu's ranking. *cluster*: the best of each of k clusters, guided. Beside these, what tells
whether they are worth anything: *most frequent*, the concepts that most captions of the set name; *random neighbours*, guided; *counted*,
what most neighbours name, which needs no text row; *alignment alone*, over the whole vocabulary, without neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness import DATA
from harness.arguments import bench_parser, list_of
from harness.commands import run
from harness.machine import surroundings
from harness.report import made_by, percent, progress, publish, section, with_interval, write_json

from ovskit.core.concepts.draws import draw_concepts
from ovskit.core.concepts.matching import Matcher
from ovskit.core.concepts.vocabulary import open_vocabulary
from ovskit.core.curate.kernels import Float32, Float64, unit
from ovskit.core.curate.relevance import Archive, Named, rank
from ovskit.core.curate.text_clusters import cluster_concepts, seeds_of
from ovskit.core.formats.streams.curated import Concept, CuratedPair
from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.records import Int64
from tests.curate.conditions import nearest

SETS = ("captions", "flickr8k")
KS = (1, 3, 5)
MOST = max(KS)
UNCOMMON = 0.01
CAPTIONS = 3  # of language-driven expansion
BASES = ("frequent", "naive")
METHODS = {
    "frequent": "most frequent",
    "random": "random neighbours",
    "alignment": "alignment alone",
    "language": "language-driven",
    "counted": "counted",
    "naive": "naive",
    "guided": "guided, Eq. 8",
    "code": "guided, as in the published code",
    "raised": "guided, Eq. 8 of (1 + cosine) / 2",
    "cluster": "cluster, best",
}
Ranked = list[Sequence[int]]
"""The first concepts of each photograph."""


@dataclass(frozen=True)
class Photographs:
    """Photographs' names without folder and ending, their first captions' concepts, those that only their other captions name, and rows
    (n, c) of length 1; ``of`` is the part to which each belongs that is curated together."""

    keys: list[str]
    named: list[tuple[int, ...]]
    missed: list[frozenset[int]]
    rows: Float32
    of: Int64

    def part(self, which: Any) -> Photographs:
        """Those at the places ``which``."""
        places = np.flatnonzero(which).tolist()
        named, missed = [self.named[k] for k in places], [self.missed[k] for k in places]
        return Photographs([self.keys[k] for k in places], named, missed, self.rows[places], self.of[places])


def captions_of(name: str) -> dict[str, list[str]]:
    """The five captions of each photograph of a set."""
    if name == "captions":
        lines = [json.loads(line) for line in (DATA / "captions" / "captions.jsonl").read_text().splitlines()]
        return {Path(line["file_name"]).stem: line["captions"] for line in lines}
    found = {}
    for path in sorted((DATA / "flickr8k_pairs").glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                file = shard.extractfile(member) if member.name.endswith(".json") else None
                if file is not None:
                    found[Path(member.name).stem] = json.load(file)["captions"]
    return found


def image_rows(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Float32]:
    """The embedding of each photograph of a set."""
    paths = [str(path) for path in arguments.rows]
    if not paths:
        where = [DATA / "captions" / "images"] if name == "captions" else sorted((DATA / "flickr8k_pairs").glob("*.tar"))
        paths = [str(folder / f"{name}.npz")]
        run("ovs-extract", "-q", "--model", arguments.model, "--size", arguments.size, "--pool", "cls", *where, "-o", paths[0])
    with RowFiles(paths) as files:
        places = np.arange(len(files))
        rows = unit(files.take(places))
        return {Path(one.file_name).stem: row for one, row in zip(files.names(places), rows, strict=True)}


def text_rows(path: Path | None) -> dict[str, Float32]:
    """What a text tower made of names: the arrays ``names`` (n,) and ``rows`` (n, c) of an .npz file."""
    if path is None:
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(zip(map(str, file["names"].tolist()), unit(file["rows"].astype(np.float32)), strict=True))


def gathered(name: str, matcher: Matcher, arguments: argparse.Namespace, folder: Path, parts: int) -> Photographs:
    """A set; its photographs belong to ``parts`` parts in turn, by name."""
    captions, rows = captions_of(name), image_rows(name, arguments, folder)
    keys = sorted(captions.keys() & rows.keys())
    if not keys:
        raise SystemExit(f"no row of any photograph of {name}; --rows has others")
    named = [matcher.concepts_of(captions[key][0]) for key in keys]
    others = [{concept for caption in captions[key][1:] for concept in matcher.concepts_of(caption)} for key in keys]
    missed = [frozenset(other - set(own)) for own, other in zip(named, others, strict=True)]
    return Photographs(keys, named, missed, np.stack([rows[key] for key in keys]), np.arange(len(keys)) % parts)


def means(rows: Float32, named: Iterable[Sequence[int]], count: int, most: int = 0) -> tuple[Float32, Any]:
    """The mean row (count, c) of each concept's photographs, of length 1, and whether it has any; of the first ``most`` only, if not 0."""
    sums = np.zeros((count, rows.shape[1]))
    seen = np.zeros(count, np.int64)
    for row, concepts in zip(rows, named, strict=True):
        places = [concept for concept in concepts if not most or seen[concept] < most]
        sums[places] += row
        seen[places] += 1
    return unit(sums.astype(np.float32)), seen > 0


def in_a_cone(rows: Float32) -> Float32:
    """Unit rows with one number more, so that what had the cosine c has (1 + c) / 2, as all rows of CLIP have some cosine above 0."""
    return unit(np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1))


def listed(named: Sequence[Sequence[int]]) -> Named:
    """Concepts as ``rank`` takes them."""
    return Named(np.array([c for one in named for c in one], np.int32), np.cumsum([0, *map(len, named)]).astype(np.int64))


def without_own(found: Archive) -> Archive:
    """The concepts that the own caption does not name."""
    sizes = [int((~found.own[a:b]).sum()) for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]
    starts = np.cumsum([0, *sizes]).astype(np.int64)
    ids, score, alignment, own, seen = (each[~found.own] for each in found[:5])
    return Archive(ids, score, alignment, own, seen, starts, found.clamped)


def first(found: Archive) -> Ranked:
    """The best of each photograph."""
    return [found.ids[a:b][:MOST].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]


def by_votes(found: Archive, often: Int64) -> Ranked:
    """Those that most neighbours name, equal ones by how frequent they are."""
    votes, ranked = np.bitwise_count(found.seen), []
    for a, b in zip(found.starts[:-1], found.starts[1:], strict=True):
        order = np.lexsort((found.ids[a:b], -often[found.ids[a:b]], -votes[a:b].astype(np.int64)))
        ranked.append(found.ids[a:b][order[:MOST]].tolist())
    return ranked


def of_clusters(found: Archive, texts: Float32, keys: Sequence[str], k: int) -> Ranked:
    """The best of each of ``k`` clusters, as a training step at temperature 0 draws them."""
    clusters = cluster_concepts(texts, found.ids, found.starts, k, seeds_of(keys, 0))
    ranked = []
    for key, a, b in zip(keys, found.starts[:-1], found.starts[1:], strict=True):
        columns = zip(found.ids[a:b].tolist(), found.score[a:b].tolist(), clusters[a:b].tolist(), strict=True)
        concepts = tuple(Concept(str(concept), value, 0.0, cluster, False, ()) for concept, value, cluster in columns)
        drawn = draw_concepts(CuratedPair(1, key, key, ("",), concepts, ()), seed=0, step=0, texts=k, temperature=0)
        ranked.append([int(name) for name in drawn])
    return ranked


def curated(
    part: Photographs, texts: Float32, known: Any, captions: Float32, count: int
) -> tuple[dict[str, dict[int, Ranked]], dict[str, float]]:
    """What each method gives for each k, and what there is to say of the archives."""
    named = [tuple(c for c in one if known[c]) for one in part.named]
    theirs = listed(named)
    often = np.bincount(theirs.ids, minlength=len(texts)).astype(np.int64)
    own = [set(one) for one in part.named]

    def ranked(neighbours: Int64, raised: bool = False, **how: Any) -> Archive:
        rows, terms = (in_a_cone(part.rows), in_a_cone(texts)) if raised else (part.rows, texts)
        return without_own(rank(rows, rows, terms, neighbours, listed(named), theirs, include_own=False, **how))

    def best(order: Sequence[int], k: int) -> list[int]:
        return [c for c in order[: MOST + len(own[k])] if c not in own[k]][:MOST]

    near = nearest(part.rows, part.rows, part.keys, count)
    says = np.array([k for k, one in enumerate(named) if one])  # a caption without a concept has no row
    place = np.full(len(named), -1, np.int64)
    place[says] = np.arange(len(says))
    told = nearest(part.rows, captions[says], [part.keys[k] for k in says.tolist()], CAPTIONS, place)
    rng = np.random.default_rng(0)
    others = np.stack([k + 1 + rng.choice(len(named) - 1, count, replace=False) for k in range(len(named))]) % len(named)
    frequent = np.argsort(-often, kind="stable").tolist()
    cosines = np.where(known, part.rows.astype(np.float64) @ texts.T.astype(np.float64), -2)
    aligned = np.argsort(-cosines, axis=1, kind="stable")[:, : MOST + max(map(len, own))].tolist()
    guided = ranked(near)
    lists = {
        "frequent": [best(frequent, k) for k in range(len(own))],
        "random": first(ranked(others)),
        "alignment": [best(aligned[k], k) for k in range(len(own))],
        "language": first(ranked(says[told], guided=False)),
        "counted": by_votes(guided, often),
        "naive": first(ranked(near, guided=False)),
        "guided": first(guided),
        "code": first(ranked(near, score="code")),
        "raised": first(ranked(near, raised=True)),
    }
    found = {name: {k: [one[:k] for one in each] for k in KS} for name, each in lists.items()}
    found["cluster"] = {k: of_clusters(guided, texts, part.keys, k) for k in KS}
    held = [set(guided.ids[a:b].tolist()) for a, b in zip(guided.starts[:-1], guided.starts[1:], strict=True)]
    wanted = sum(map(len, part.missed))
    about = {
        "terms": len(guided.ids) / len(own),
        "held": sum(len(a & b) for a, b in zip(held, part.missed, strict=True)) / wanted,
        "known": sum(bool(known[c]) for one in part.missed for c in one) / wanted,
        "clamped": float((guided.alignment <= 1e-6).mean()),
    }
    return found, about


def measured(ranked: Ranked, missed: Sequence[frozenset[int]], k: int) -> Float64:
    """Recall and precision (2, n) at ``k`` of the photographs that miss something."""
    pairs = [(len(wanted.intersection(one)), len(wanted)) for one, wanted in zip(ranked, missed, strict=True) if wanted]
    hits, there = np.array(pairs, np.float64).T
    return np.stack([hits / there, hits / k])


def interval(values: Float64, resamples: int) -> tuple[float, float]:
    """The 95 % interval of the mean by bootstrap over photographs, the same resamples for the same number of photographs."""
    rng = np.random.default_rng(0)
    drawn = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return low, high


def of_set(
    name: str, sets: dict[str, Photographs], names: Sequence[str], most: int, arguments: argparse.Namespace
) -> tuple[list[str], dict[str, Any]]:
    """The lines about a set, and the numbers; ``most`` photographs make a concept's row, 0 for all."""
    whole = sets[name]
    given, told = text_rows(arguments.concept_rows), text_rows(arguments.caption_rows)
    often = np.bincount([c for one in whole.named for c in one], minlength=len(names))
    values: dict[str, dict[int, list[Float64]]] = {}
    uncommon: dict[str, list[Float64]] = {}
    abouts, sizes = [], []
    for number in range(int(whole.of.max()) + 1):
        part = whole.part(whole.of == number)
        if given:
            known = np.array([one in given for one in names])
            texts = np.stack([given.get(one, np.zeros(part.rows.shape[1], np.float32)) for one in names])
        else:
            away = [whole.part(whole.of != number), *(other for key, other in sets.items() if key != name)]
            rows, words = np.concatenate([each.rows for each in away]), [one for each in away for one in each.named]
            texts, known = means(rows, words, len(names), most)
        captions = unit(np.stack([texts[list(one)].sum(axis=0) for one in part.named]).astype(np.float32))
        for k, key in enumerate(part.keys):
            captions[k] = told.get(key, captions[k])
        found, about = curated(part, texts, known, captions, arguments.neighbours)
        rest = [frozenset(c for c in one if often[c] < UNCOMMON * len(whole.keys)) for one in part.missed]
        for method, lists in found.items():
            uncommon.setdefault(method, []).append(measured(lists[MOST], rest, MOST)[0])
            for k in KS:
                values.setdefault(method, {}).setdefault(k, []).append(measured(lists[k], part.missed, k))
        abouts.append(about)
        sizes.append(len(part.keys))
    scores = {method: {k: np.concatenate(each, axis=1) for k, each in by_k.items()} for method, by_k in values.items()}
    about = {key: float(np.average([one[key] for one in abouts], weights=sizes)) for key in abouts[0]}
    title = name if given else f"{name}, a concept's row the mean of {f'at most {most}' if most else 'all its'} photographs"
    return described(title, whole, scores, {method: np.concatenate(each) for method, each in uncommon.items()}, about, arguments)


def described(
    name: str,
    whole: Photographs,
    scores: dict[str, dict[int, Float64]],
    uncommon: dict[str, Float64],
    about: dict[str, float],
    arguments: argparse.Namespace,
) -> tuple[list[str], dict[str, Any]]:
    """The lines about a set, and the numbers."""
    many = scores["frequent"][1].shape[1]
    mean = np.mean([len(one) for one in whole.missed if one])
    known, held, clamped = (percent(about[key]) for key in ("known", "held", "clamped"))
    text = (
        f"{many:,} of {len(whole.keys):,} photographs miss something, {mean:.1f} concepts on average; {known} % of these have a row. The "
        f"archive of {arguments.neighbours} neighbours has {about['terms']:.1f} terms that the caption does not name, among them {held} % "
        f"of the missed; of {clamped} % of them the cosine with the photograph is clamped."
    )
    found: dict[str, Any] = {"photographs": many, **about, "scores": {}, "gains": {}}
    rows = []
    for method, title in METHODS.items():
        cells = []
        for what, share in enumerate(("recall", "precision")):
            for k in KS:
                value = scores[method][k][what]
                mean, ends = float(value.mean()), interval(value, arguments.bootstrap)
                found["scores"].setdefault(method, {})[f"{share}@{k}"] = {"mean": mean, "interval": ends}
                cells.append(with_interval(mean, ends))
        mean, ends = float(uncommon[method].mean()), interval(uncommon[method], arguments.bootstrap)
        found["scores"][method][f"uncommon@{MOST}"] = {"mean": mean, "interval": ends}
        rows.append((title, *cells, with_interval(mean, ends)))
    columns = ("", *(f"recall@{k}" for k in KS), *(f"precision@{k}" for k in KS), f"uncommon@{MOST}")
    lines = section(name, columns, rows, text)
    for base in BASES:
        gains = gained(scores, base, arguments.bootstrap)
        found["gains"][base] = gains
        rows = [(METHODS[method], *(with_interval(*each, "+.1f") for each in by_k.values())) for method, by_k in gains.items()]
        lines += section(f"Differences to *{METHODS[base]}*, {name}", columns[: len(KS) + 1], rows, verdict(gains, METHODS[base]))
    return lines, found


Gains = dict[str, dict[int, tuple[float, tuple[float, float]]]]
"""The mean difference in recall of each method at each k, and its interval."""


def gained(scores: dict[str, dict[int, Float64]], base: str, resamples: int) -> Gains:
    """Recall of the methods less that of ``base``, photograph by photograph."""
    steps = {method: {k: by_k[k][0] - scores[base][k][0] for k in KS} for method, by_k in scores.items() if method != base}
    found = {method: {k: (float(each.mean()), interval(each, resamples)) for k, each in by_k.items()} for method, by_k in steps.items()}
    return {method: found[method] for method in METHODS if method in found}


def verdict(gains: Gains, base: str) -> str:
    """Which methods find more and which less than ``base``, beyond the interval."""
    said = []
    for k in KS:
        ends = {METHODS[method]: by_k[k][1] for method, by_k in gains.items()}
        more, less = [title for title, (low, _) in ends.items() if low > 0], [title for title, (_, high) in ends.items() if high < 0]
        said.append(f"At {k}, more than *{base}*: {'; '.join(more) or 'none'}. Less: {'; '.join(less) or 'none'}.")
    return " ".join(said)


def main() -> None:
    parser = bench_parser(__doc__, model="builtin", bootstrap=2000, markdown=True, json=True)
    parser.add_argument("--sets", type=list_of(str, SETS), default=",".join(SETS), help=f"photographs of [{','.join(SETS)}]")
    parser.add_argument("--size", default="224", help="pixels a side at which photographs are described [224]")
    parser.add_argument(
        "--rows", type=list_of(Path), default="", metavar="FILE,FILE", help="pooled streams of ovs-extract that have the rows"
    )
    parser.add_argument("--concept-rows", type=Path, metavar="FILE", help="a text tower's rows of concepts: .npz with names and rows")
    parser.add_argument("--caption-rows", type=Path, metavar="FILE", help="a text tower's rows of first captions, by photographs' names")
    text = "photographs of which a concept's row is the mean at most, 0 for all [0,3]"
    parser.add_argument("--per-concept", type=list_of(int), default="0,3", metavar="N,N", help=text)
    parser.add_argument("--vocabulary", help="the concepts, as ovs-curate takes them [those that ship]")
    parser.add_argument("--neighbours", type=int, default=8, help="images of an archive [8]")
    arguments = parser.parse_args()
    about = {"bench": "curate_photographs", **surroundings()}
    vocabulary = open_vocabulary(arguments.vocabulary)
    matcher = Matcher(vocabulary)
    sets = {}
    with tempfile.TemporaryDirectory() as folder:
        # All of them without a text tower, since one set's concept rows are from the others.
        for name in SETS if arguments.concept_rows is None else arguments.sets:
            parts = 2 if name == "flickr8k" and arguments.concept_rows is None else 1
            sets[name] = gathered(name, matcher, arguments, Path(folder), parts)
            progress(f"{name}: {len(sets[name].keys)} photographs")
    about_it = [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")]
    lines = ["# Concept curation on photographs with five captions", ""]
    lines += [f"{made_by(about)}; {len(vocabulary.names):,} concepts, vocabulary {vocabulary.hash}. Percent."]
    lines += [line for part in about_it for line in ("", part)]
    numbers = {}
    for name in arguments.sets:
        for most in arguments.per_concept if arguments.concept_rows is None else [0]:
            more, numbers[f"{name} {most}"] = of_set(name, sets, vocabulary.names, most, arguments)
            lines += more
    publish(lines, arguments.markdown)
    write_json(arguments.json, {**about, "vocabulary": vocabulary.hash, "sets": numbers})


if __name__ == "__main__":
    main()
