"""CoCu's concept curation (section 3.2) from rows and pairs to curated pairs: expansion, guided ranking, clusters of texts.

An image's neighbours are looked for among rows that lie on disk, a large batch of images at a time; then the concepts of their captions are
ranked and clustered, some thousand images at a time. What an image gets depends on the rows, the pairs and the options alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ovskit.core.concepts.matching import Matcher
from ovskit.core.concepts.vocabulary import Vocabulary
from ovskit.core.curate.kernels import Float32, unit
from ovskit.core.curate.neighbours import Candidates, Neighbours, find_neighbours
from ovskit.core.curate.relevance import Archive, Named, rank
from ovskit.core.curate.text_clusters import cluster_concepts, seeds_of
from ovskit.core.formats.pairs.record import Pair, key_of
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.curated import Concept, CuratedPair, Neighbour
from ovskit.core.records import Int32, Int64
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.workers import ordered_map

if TYPE_CHECKING:
    from ovskit.core.curate.options import CurateOptions
    from ovskit.core.formats.pairs.pair_set import PairSet
    from ovskit.core.formats.streams.row_files import RowFiles

BATCH = 1 << 17  # images whose neighbours are searched at once: 268 MB at 512 numbers
_PART = 1 << 12  # images that are ranked at once
_LOOKED_UP = 1 << 16  # keys whose captions are asked for at once
_SAMPLE = 1000
_EXAMPLES = 3
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Reference:
    """What an image is expanded by: rows of images or of captions, and the pairs that they are of. ``is_own``: the images that are curated
    are these rows themselves."""

    rows: RowFiles
    pairs: PairSet
    candidates: Candidates
    is_own: bool


@dataclass(slots=True)
class Counts:
    """What happened: images curated and without a pair, archives without a concept, similarities that were clamped."""

    done: int = 0
    unpaired: int = 0
    empty: int = 0
    clamped: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Count what ``other`` has counted."""
        self.done += other.done
        self.unpaired += other.unpaired
        self.empty += other.empty
        self.clamped += other.clamped
        self.examples = [*self.examples, *other.examples][:_EXAMPLES]


@dataclass(frozen=True, slots=True)
class Curation:
    """One run: the ``rows`` of images and their ``pairs``, the ``reference`` to expand them by, the concepts, what finds them in captions,
    and their rows ``texts`` (C, c) float32 of length 1; and the options. ``workers`` threads rank and cluster.
    ``counts`` grows as it goes."""

    rows: RowFiles
    pairs: PairSet
    reference: Reference
    vocabulary: Vocabulary
    matcher: Matcher
    texts: Float32
    options: CurateOptions
    workers: int = 1
    counts: Counts = field(default_factory=Counts)


class _Batch(NamedTuple):
    """Images whose neighbours are known: their positions among the rows, their keys and file names, their neighbours, and which of
    ``others``, positions in the reference with their keys and concepts, these are."""

    positions: Int64
    keys: list[str]
    file_names: list[str]
    neighbours: Neighbours
    places: Int64
    others: Int64
    other_keys: list[str]
    named: Named


class _Part(NamedTuple):
    """Some images of a batch: the ``places`` of those that have a pair, the ``pairs``, and the keys of those that have none."""

    places: list[int]
    pairs: list[Pair]
    lost: list[str]


class _Ranked(NamedTuple):
    """What became of a part."""

    pairs: list[CuratedPair]
    counts: Counts


def keys_at(rows: RowFiles, positions: Int64) -> list[str]:
    """The keys of the pairs that the rows at ``positions`` are of."""
    return [key_of(one.file_name, one.root) for one in rows.names(positions)]


def sorting_keys(rows: RowFiles) -> Callable[[Int64], list[bytes]]:
    """Keys as bytes, by which equally similar rows are ordered."""
    return lambda positions: [key.encode("utf-8", "surrogatepass") for key in keys_at(rows, positions)]


def check_together(rows: RowFiles, pairs: PairSet) -> None:
    """Raises InputError if no row of a sample has a pair: they do not belong together."""
    sample = np.unique(np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64))
    keys = keys_at(rows, sample)
    if any(pair is not None for pair in pairs.find(keys)):
        return
    theirs = [name for name, _ in zip(pairs.names(), range(_EXAMPLES), strict=False)]
    raise InputError(
        f"rows and pairs do not belong together: of {len(keys)} rows looked at, such as {_some(keys)}, none has a pair; pairs are "
        f"{_some(theirs) or 'missing'}; name the pairs that the rows are of, or extract the rows with the --root that these names are below"
    )


def curate(run: Curation, positions: Int64) -> Iterator[CuratedPair]:
    """The images at ``positions``, in this order, with their archives; those without a pair are left out and counted.

    Raises InputError for embeddings that are damaged or not finite.
    """
    for start in range(0, len(positions), BATCH):
        batch = _expanded(run, positions[start : start + BATCH])
        for ranked in ordered_map(partial(_ranked, run, batch), _parts(run, batch), run.workers):
            run.counts.add(ranked.counts)
            yield from ranked.pairs


def _expanded(run: Curation, positions: Int64) -> _Batch:
    reference, options = run.reference, run.options
    names = run.rows.names(positions)
    keys = [key_of(one.file_name, one.root) for one in names]
    own = positions if reference.is_own else np.full(len(positions), -1, np.int64)
    limit = options.near_duplicates if options.expansion == "vision" else None
    # One more, since another row may be of the same key.
    found = find_neighbours(
        unit(run.rows.take(positions)), own, reference.rows, options.neighbours + 1, reference.candidates,
        sorting_keys(reference.rows), near_duplicates=limit,
    )  # fmt: skip
    others = np.unique(found.positions)
    others = others[others >= 0]
    other_keys = keys_at(reference.rows, others)
    places = np.where(found.positions >= 0, np.searchsorted(others, found.positions), -1)
    neighbours, places = _without_own(found, places, keys, other_keys, options.neighbours)
    named = _concepts(run, reference.pairs, other_keys)
    return _Batch(positions, keys, [one.file_name for one in names], neighbours, places, others, other_keys, named)


def _without_own(found: Neighbours, places: Int64, keys: Sequence[str], other_keys: Sequence[str], count: int) -> tuple[Neighbours, Int64]:
    """The neighbours and their places without those that have the key of the image itself, ``count`` of each."""
    all_keys = {key: place for place, key in enumerate(dict.fromkeys([*other_keys, *keys]))}
    of_others = np.array([all_keys[key] for key in other_keys] or [0], np.int64)
    of_images = np.array([all_keys[key] for key in keys], np.int64)
    is_own = (places >= 0) & (of_others[places] == of_images[:, None])
    order = np.argsort(is_own, axis=1, kind="stable")[:, :count]
    positions, similarity = np.take_along_axis(found.positions, order, axis=1), np.take_along_axis(found.similarity, order, axis=1)
    kept = np.take_along_axis(places, order, axis=1)
    last_is_own = np.take_along_axis(is_own, order, axis=1)
    kept[last_is_own] = -1
    positions[last_is_own] = -1
    similarity[last_is_own] = -np.inf
    return Neighbours(positions, similarity), kept


def _concepts(run: Curation, pairs: PairSet, keys: Sequence[str]) -> Named:
    """The concepts that the captions of pairs name; none for a key without a pair."""
    ids, sizes = [], []
    for start in range(0, len(keys), _LOOKED_UP):
        for pair in pairs.find(keys[start : start + _LOOKED_UP]):
            named = [] if pair is None else _named(run.matcher, pair)
            ids += named
            sizes.append(len(named))
    return Named(np.array(ids, np.int32), np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))]).astype(np.int64))


def _named(matcher: Matcher, pair: Pair) -> list[int]:
    return sorted({concept for caption in pair.captions for concept in matcher.concepts_of(caption)})


def _parts(run: Curation, batch: _Batch) -> Iterator[_Part]:
    """Some images at a time, with their pairs, which one thread reads."""
    for start in range(0, len(batch.positions), _PART):
        pairs = list(run.pairs.find(batch.keys[start : start + _PART]))
        places = [start + k for k, pair in enumerate(pairs) if pair is not None]
        lost = [batch.keys[start + k] for k, pair in enumerate(pairs) if pair is None]
        yield _Part(places, [pair for pair in pairs if pair is not None], lost)


def _ranked(run: Curation, batch: _Batch, part: _Part) -> _Ranked:
    options, counts = run.options, Counts(unpaired=len(part.lost), examples=part.lost[:_EXAMPLES])
    if not part.pairs:
        return _Ranked([], counts)
    own = [_named(run.matcher, pair) for pair in part.pairs]
    places = batch.places[part.places]
    wanted = np.unique(places[places >= 0])
    local = np.where(places >= 0, np.searchsorted(wanted, places), -1)
    guided = options.is_guided
    rows = unit(run.reference.rows.take(batch.others[wanted])) if guided else np.zeros((len(wanted), run.rows.width), np.float32)
    archive = rank(
        unit(run.rows.take(batch.positions[part.places])), rows, run.texts, local, _lists(own), _chosen(batch.named, wanted),
        include_own=options.own, guided=guided, score=options.score if guided else "eq8",
    )  # fmt: skip
    keys = [batch.keys[k] for k in part.places]
    clusters = cluster_concepts(run.texts, archive.ids, archive.starts, options.texts, seeds_of(keys, options.seed))
    found = []
    for row, (k, pair) in enumerate(zip(part.places, part.pairs, strict=True)):
        concepts = _archive_of(run.vocabulary, archive, clusters, row)
        near = zip(batch.places[k].tolist(), batch.neighbours.similarity[k].tolist(), strict=True)
        neighbours = tuple(Neighbour(batch.other_keys[place], round(value, _DIGITS)) for place, value in near if place >= 0)
        found.append(CuratedPair(int(batch.positions[k]) + 1, pair.key, batch.file_names[k], pair.captions, concepts, neighbours))
    counts.done, counts.clamped = len(found), archive.clamped
    counts.empty = sum(not pair.concepts for pair in found)
    return _Ranked(found, counts)


def _archive_of(vocabulary: Vocabulary, archive: Archive, clusters: Int32, row: int) -> tuple[Concept, ...]:
    part = slice(int(archive.starts[row]), int(archive.starts[row + 1]))
    columns = (archive.ids, archive.score, archive.alignment, clusters, archive.own, archive.seen)
    return tuple(
        Concept(vocabulary.names[concept], round(score, _DIGITS), round(alignment, _DIGITS), cluster, own, _bits(seen))
        for concept, score, alignment, cluster, own, seen in zip(*(column[part].tolist() for column in columns), strict=True)
    )


def _bits(number: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(number.bit_length()) if number >> bit & 1)


def _lists(concepts: Sequence[Sequence[int]]) -> Named:
    sizes = np.array([len(one) for one in concepts], np.int64)
    return Named(np.array([k for one in concepts for k in one], np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _chosen(named: Named, wanted: Int64) -> Named:
    """The lists at the places ``wanted``."""
    sizes = np.diff(named.starts)[wanted]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    places = np.arange(starts[-1]) - np.repeat(starts[:-1] - named.starts[wanted], sizes)
    return Named(named.ids[places], starts)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(map(show_path, keys[:_EXAMPLES]))
