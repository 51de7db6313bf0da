"""The conditions of CoCu's Table 3 on a generated world, by the functions of the package, and how good what they give is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovskit.core.concepts.draws import draw_concepts
from ovskit.core.curate.kernels import Float32
from ovskit.core.curate.neighbours import ExactSearch, find_neighbours
from ovskit.core.curate.relevance import Archive, Named, rank
from ovskit.core.curate.text_clusters import cluster_concepts, seeds_of
from ovskit.core.formats.streams.curated import Concept, CuratedPair
from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.records import Int64
from tests.curate.world import RARE, World
from tests.rows import write_rows

TEXTS = 3
"""L, how many texts an image has beside its caption."""


class Score(NamedTuple):
    """How good chosen terms are, over all images together.

    ``precision``: the share of them that name what the image shows; ``recall``: the share of what the images show that at least one of
    them names; ``rare``: the same of what is inconspicuous. ``terms`` and ``distinct``: how many terms an image has, and how many things
    that it shows they name.
    """

    precision: float
    recall: float
    rare: float
    terms: float
    distinct: float


def score(world: World, chosen: Named) -> Score:
    """How good the terms ``chosen`` for each image are."""
    truth = world.truth
    row = np.repeat(np.arange(len(truth)), np.diff(chosen.starts))
    concept = world.concept[chosen.ids]
    found = np.zeros_like(truth)
    found[row, concept] = True
    found &= truth
    right = truth[row, concept].sum()
    rare = found[:, RARE].sum() / truth[:, RARE].sum()
    return Score(right / len(row), found.sum() / truth.sum(), rare, len(row) / len(truth), found.sum() / len(truth))


def nearest(queries: Float32, rows: Float32, keys: Sequence[str], count: int, own: Int64 | None = None) -> Int64:
    """Places of the ``count`` of ``rows`` (n, c) nearest to each of ``queries`` (q, c), but for the places ``own`` (q,), by default the
    same as the query's."""
    own = np.arange(len(keys)) if own is None else own
    with tempfile.TemporaryDirectory() as folder, RowFiles([str(write_rows(Path(folder) / "rows.npz", keys, rows))]) as files:
        return find_neighbours(queries, own, files, count, ExactSearch(files), lambda at: [keys[k].encode() for k in at.tolist()]).positions


def by_vision(world: World, count: int) -> Int64:
    """The images nearest to each image: vision-driven expansion."""
    return nearest(world.images, world.images, world.keys, count)


def by_language(world: World, count: int = TEXTS) -> Int64:
    """The captions, of others, nearest to each image: language-driven expansion."""
    return nearest(world.images, world.caption_rows, world.keys, count)


def archive(world: World, neighbours: Int64, **how: Any) -> Archive:
    """What captions of each image and of its ``neighbours`` name, ranked as ``rank`` does."""
    return rank(world.images, world.images, world.texts, neighbours, world.named, world.named, **how)


def by_count(found: Archive) -> Archive:
    """The archive ranked by how many neighbours' captions name a term, what the own caption names first, equal ones by alignment: what the
    three best would be without Eq. 7 and 8."""
    count = np.bitwise_count(found.seen).astype(np.float64) + np.where(found.own, 100.0, 0.0)
    order = np.lexsort((-found.alignment, -count, np.repeat(np.arange(len(found.starts) - 1), np.diff(found.starts))))
    ids, alignment, own, seen = (each[order] for each in (found.ids, found.alignment, found.own, found.seen))
    return Archive(ids, count[order], alignment, own, seen, found.starts, found.clamped)


def all_of(found: Archive) -> Named:
    """The whole archive."""
    return Named(found.ids, found.starts)


def pairs(world: World, found: Archive, seed: int = 0) -> list[CuratedPair]:
    """The lines of a curated stream."""
    clusters = cluster_concepts(world.texts, found.ids, found.starts, TEXTS, seeds_of(world.keys, seed))
    columns = (found.ids, found.score, found.alignment, clusters, found.own)
    listed = [
        Concept(world.terms[term], value, cosine, cluster, own, ())
        for term, value, cosine, cluster, own in zip(*(column.tolist() for column in columns), strict=True)
    ]
    ends = found.starts.tolist()
    return [
        CuratedPair(k + 1, key, f"{key}.jpg", (world.captions[k],), tuple(listed[ends[k] : ends[k + 1]]), ())
        for k, key in enumerate(world.keys)
    ]


def drawn(world: World, lines: Sequence[CuratedPair], steps: int = 1, **how: Any) -> Score:
    """The mean over ``steps`` training steps of what they draw of the pairs; ``how`` is that of ``draw_concepts``."""
    place = {term: k for k, term in enumerate(world.terms)}
    scores = []
    for step in range(steps):
        names = [draw_concepts(line, seed=0, step=step, texts=TEXTS, **how) for line in lines]
        ids = np.array([place[name] for one in names for name in one], np.int32)
        scores.append(score(world, Named(ids, np.cumsum([0, *map(len, names)]).astype(np.int64))))
    return Score(*np.mean(scores, axis=0).tolist())


def table(world: World, count: int, *, steps: int = 3) -> dict[str, Score]:
    """Every condition with ``count`` neighbours; what is drawn at random is the mean over ``steps`` steps."""
    near = by_vision(world, count)
    guided = archive(world, near)
    naive, code = (pairs(world, archive(world, near, **how)) for how in ({"guided": False}, {"score": "code"}))
    lines = pairs(world, guided)
    return {
        "caption only": score(world, world.named),
        "language": score(world, all_of(archive(world, by_language(world)))),
        "vision": score(world, all_of(guided)),
        "naive": drawn(world, naive, sampling="naive"),
        "guided": drawn(world, lines, sampling="naive"),
        "guided, code": drawn(world, code, sampling="naive"),
        "count": drawn(world, pairs(world, by_count(guided)), sampling="naive"),
        "cluster, best": drawn(world, lines, temperature=0),
        "cluster, T = 0.1": drawn(world, lines, steps, temperature=0.1),
        "cluster, T = 1": drawn(world, lines, steps),
        "softmax": drawn(world, lines, steps, sampling="softmax"),
    }
