"""A generated world of image-text pairs in which it is known what each image shows and what its caption leaves out.

An image is a composite of two to four things, cut by guillotine: one cut after the other goes right across a part, the largest. Only the
areas of the parts matter to the simulated encoder, so there are no pixels. Eight concepts are salient, captions name them with
probability 0.9; eight are inconspicuous, captions name them with 0.15; every image has at least one of each. With synonyms a concept has
three surface forms, and a caption uses one of them at random.

The dual encoder is simulated in 64 dimensions. An image is the sum of its concepts' vectors by area, those of inconspicuous concepts
at 0.45, which is the bias towards the salient that captions teach an encoder; plus what all images share (the cone) and noise. A text is
the mean of its concepts' vectors, plus the cone and what only texts share (the modality gap). Constants are chosen so that cosines and
the archives of eight neighbours are about those of the design's prototype: present and salient .50, present and inconspicuous .42, absent
.31, a few below 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovskit.core.curate.kernels import Float32, Float64
from ovskit.core.curate.relevance import Named
from ovskit.core.records import Int64

Bool = npt.NDArray[np.bool_]

SALIENT = (
    ("airplane", "plane", "jet"), ("dog", "hound", "pup"), ("car", "automobile", "sedan"), ("woman", "lady", "female"),
    ("boat", "ship", "vessel"), ("house", "home", "cottage"), ("bike", "bicycle", "cycle"), ("child", "kid", "youngster"),
)  # fmt: skip
INCONSPICUOUS = (
    ("grass", "lawn", "turf"), ("road", "street", "lane"), ("stone", "rock", "boulder"), ("rug", "carpet", "mat"),
    ("bush", "shrub", "hedge"), ("sea", "ocean", "surf"), ("cup", "mug", "beaker"), ("couch", "sofa", "settee"),
)  # fmt: skip
CONCEPTS = SALIENT + INCONSPICUOUS
RARE = np.arange(len(CONCEPTS)) >= len(SALIENT)
"""Which concepts are inconspicuous, so that captions rarely name them."""
NAMING = np.where(RARE, 0.15, 0.9)
WEIGHT = np.where(RARE, 0.45, 1.0)

WIDTH = 64
CONE = 0.5  # of images
TEXT_CONE = 0.9
GAP = 1.65
NOISE = 0.2  # length of an image's noise
WORDING = 0.3  # length of what a caption says beside its concepts
FORM = 0.6  # length of what is a surface form's own, beside its concept


@dataclass(frozen=True)
class World:
    """``keys``, ``captions`` (n,); ``images`` and ``caption_rows`` (n, 64) float32, of length 1; the surface forms ``terms`` (C,), their
    rows ``texts`` (C, 64) and which ``concept`` (C,) each is of; ``named``, the terms of each caption; ``areas`` (n, 16), the share of each
    concept in each image."""

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    images: Float32
    caption_rows: Float32
    terms: tuple[str, ...]
    texts: Float32
    concept: Int64
    named: Named
    areas: Float64

    @property
    def truth(self) -> Bool:
        """(n, 16), what each image shows."""
        return np.asarray(self.areas > 0)


def make_world(seed: int, count: int, *, synonyms: bool = False) -> World:
    """A world of ``count`` pairs; the same for the same seed."""
    rng = np.random.default_rng(seed)
    meaning = _units(rng, len(CONCEPTS))
    common, gap = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
    forms = 3 if synonyms else 1
    concept = np.repeat(np.arange(len(CONCEPTS)), forms)
    terms = tuple(word for words in CONCEPTS for word in words[:forms])
    senses = meaning[concept] + (FORM * _units(rng, len(terms)) if synonyms else 0)
    senses /= np.linalg.norm(senses, axis=1, keepdims=True)

    areas = np.zeros((count, len(CONCEPTS)))
    for k in range(count):
        shown = _shown(rng, rng.integers(2, 5))
        areas[k, shown] = _cut(rng, len(shown))
    is_named = (areas > 0) & (rng.random(areas.shape) < NAMING)
    uses = np.zeros((count, len(terms)))
    row, what = np.nonzero(is_named)
    uses[row, what * forms + rng.integers(0, forms, len(row))] = 1

    images = (areas * WEIGHT) @ meaning + CONE * common + NOISE * _units(rng, count)
    content = uses @ senses / np.maximum(uses.sum(axis=1, keepdims=True), 1)
    texts_share = TEXT_CONE * common + GAP * gap
    ids = [np.flatnonzero(one).astype(np.int32) for one in uses]
    starts = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    return World(
        tuple(f"{k:06d}" for k in range(count)),
        tuple(_sentence([terms[c] for c in one]) for one in ids),
        _rows(images),
        _rows(content + texts_share + WORDING * _units(rng, count)),
        terms,
        _rows(senses + texts_share),
        concept,
        Named(np.concatenate(ids), starts),
        areas,
    )


def _shown(rng: np.random.Generator, parts: int) -> Int64:
    """``parts`` different concepts, at least one of either kind."""
    while True:
        chosen = rng.choice(len(CONCEPTS), parts, replace=False)
        if RARE[chosen].any() and not RARE[chosen].all():
            return chosen


def _cut(rng: np.random.Generator, parts: int) -> Float64:
    """The areas, in a random order, of a unit square's parts by guillotine cuts: each goes across the largest part's longer side."""
    sides = [(1.0, 1.0)]
    while len(sides) < parts:
        width, height = sides.pop(max(range(len(sides)), key=lambda k: sides[k][0] * sides[k][1]))
        share = rng.uniform(0.3, 0.7)
        sides += [(width * part, height) if width >= height else (width, height * part) for part in (share, 1 - share)]
    return rng.permutation([width * height for width, height in sides])


def _sentence(words: list[str]) -> str:
    listed = [f"a {word}" for word in words]
    return f"A picture of {' and '.join([', '.join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)}." if listed else "A picture."


def _units(rng: np.random.Generator, count: int) -> Float64:
    rows = rng.normal(size=(count, WIDTH))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _rows(rows: Float64) -> Float32:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
