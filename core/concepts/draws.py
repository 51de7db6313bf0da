"""Which concepts of a curated pair a training step sees: CoCu's cluster-guided sampling (section 3.2), drawn anew at every step.

Of every cluster one concept is drawn, with a probability in proportion to exp(score / T). The paper does not name T; its code's softmax has
T = 1, with which scores that are within 0.5 of each other are drawn almost alike. A draw depends on the seed, the step and the pair's key
alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

from ovskit.core.formats.streams.curated import Concept, CuratedPair

Sampling = Literal["cluster", "softmax", "naive"]


def draw_concepts(
    pair: CuratedPair, *, seed: int, step: int, texts: int = 3, sampling: Sampling = "cluster", temperature: float = 1.0
) -> tuple[str, ...]:
    """Up to ``texts`` names of concepts for one step.

    ``cluster``: one of each cluster, in their order. ``softmax``: of the whole archive without replacement. ``naive``: the best, the same
    at every step. ``temperature`` 0 takes the best of what is drawn from.
    """
    if sampling == "naive":
        return tuple(concept.name for concept in pair.concepts[:texts])
    uniform = _uniform(f"{seed}:{step}:{pair.key}")
    if sampling == "cluster":
        groups = clusters_of(pair)[:texts]
        return tuple(_draw(group, temperature, next(uniform)).name for group in groups)
    left = list(pair.concepts)
    found: list[Concept] = []
    while left and len(found) < texts:
        found.append(_draw(left, temperature, next(uniform)))
        left.remove(found[-1])
    return tuple(concept.name for concept in found)


def clusters_of(pair: CuratedPair) -> list[list[Concept]]:
    """The concepts of each cluster, in the order of the clusters and of their scores."""
    groups: dict[int, list[Concept]] = {}
    for concept in pair.concepts:
        groups.setdefault(concept.cluster, []).append(concept)
    return [groups[number] for number in sorted(groups)]


def chances(concepts: Sequence[Concept], temperature: float) -> list[float]:
    """The probability of each of ``concepts`` to be the one that is drawn among them."""
    best = max(concept.score for concept in concepts)
    if temperature == 0:
        first = next(k for k, concept in enumerate(concepts) if concept.score == best)
        return [float(k == first) for k in range(len(concepts))]
    weights = [math.exp((concept.score - best) / temperature) for concept in concepts]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _draw(concepts: Sequence[Concept], temperature: float, uniform: float) -> Concept:
    for concept, chance in zip(concepts, chances(concepts, temperature), strict=True):
        uniform -= chance
        if uniform < 0:
            return concept
    return concepts[-1]


def _uniform(text: str) -> Iterator[float]:
    """Numbers in [0, 1) that depend on ``text`` alone."""
    block = 0
    while True:
        digest = hashlib.sha256(f"{block}:{text}".encode("utf-8", "surrogatepass")).digest()
        for at in range(0, 32, 8):
            yield (int.from_bytes(digest[at : at + 8], "little") >> 11) / (1 << 53)
        block += 1
