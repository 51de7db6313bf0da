"""Why a pair has the words that it has, as lines to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ovskit.core.concepts.draws import chances, clusters_of
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.curated import Concept, CuratedPair


def explain(pair: CuratedPair, curation: Mapping[str, Any]) -> Iterator[str]:
    """The pair's captions, its neighbours, and its concepts by cluster: score, its two terms, who names it, and how likely a training step
    is to draw it, by the options ``curation`` of the stream's header."""
    yield f"{show_path(pair.key)}  {show_path(pair.file_name)}"
    for caption in pair.captions:
        yield f"  {_plain(caption)}"
    yield ""
    yield f"neighbours ({len(pair.neighbours)})"
    for number, neighbour in enumerate(pair.neighbours):
        yield f"  {number}  {neighbour.similarity:.4f}  {show_path(neighbour.key)}"
    if not pair.concepts:
        yield ""
        yield "no concepts: neither its captions nor its neighbours' name one of the vocabulary; a training step sees the caption alone"
        return
    sampling, temperature = str(curation.get("sampling", "cluster")), float(curation.get("temperature", 1.0))
    texts = int(curation.get("texts", 3))
    drawn = _drawn(pair, sampling, temperature, texts)
    width = max(7, *(len(concept.name) for concept in pair.concepts))
    for group in clusters_of(pair):
        yield ""
        yield f"cluster {group[0].cluster}"
        yield f"  {'concept':<{width}}  score   image   neighbours  drawn  named by"
        for concept in group:
            yield (
                f"  {concept.name:<{width}}  {concept.score:6.4f}  {concept.alignment:6.4f}  {concept.score - concept.alignment:10.4f}  "
                f"{drawn[concept.name]:>5}  {_named_by(concept)}"
            )
    yield ""
    yield f"drawn: the chance of each at a training step of {texts} texts by --sampling {sampling}, temperature {temperature:g}"


def _drawn(pair: CuratedPair, sampling: str, temperature: float, texts: int) -> dict[str, str]:
    if sampling == "naive":
        return {concept.name: "yes" if place < texts else "no" for place, concept in enumerate(pair.concepts)}
    groups = clusters_of(pair)[:texts] if sampling == "cluster" else [list(pair.concepts)]
    found = {concept.name: "0%" for concept in pair.concepts}
    for group in groups:
        for concept, chance in zip(group, chances(group, temperature), strict=True):
            found[concept.name] = f"{100 * chance:.0f}%"
    return found


def _named_by(concept: Concept) -> str:
    return ", ".join(["its caption"] * concept.own + [f"neighbour {place}" for place in concept.seen]) or "-"


def _plain(text: str) -> str:
    return show_path(" ".join(text.split()))
