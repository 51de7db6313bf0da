"""Concept curation where the truth is known: the steps of CoCu's Table 3 on generated image-text pairs and a simulated dual encoder.

A seed makes a world (tests/curate/world.py): composites of two to four things, eight kinds of which captions name with probability 0.9
(salient) and eight with 0.15 (inconspicuous), and rows of images and texts of an encoder that sees the inconspicuous less. What the
conditions give is found by the functions of the package (tests/curate/conditions.py): neighbours, ranking, clusters, draws. The last tables
are of worlds in which each concept has three surface forms and a caption uses one at random.

*precision*: the share of terms that name what the image shows; *recall*: the share of what images show that at least one term names; *of
the rarely named*: the same of what is inconspicuous; *terms*, *distinct*: how many terms an image has, and how many things that it shows
they name. All over all images of a world; mean over worlds and 95 % interval by Student's t over them. Differences are paired by world.

Nothing here is a photograph, and the encoder is a model of one: the order of conditions is what this shows, not how good any of them is
on real pairs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser, list_of
from harness.machine import surroundings
from harness.report import made_by, percent, progress, publish, section, with_interval, write_json
from scipy.stats import t as student

from tests.curate.conditions import Score, all_of, archive, by_language, by_vision, score, table
from tests.curate.world import World, make_world

ROWS = {
    "caption only": "#0 caption only",
    "language": "#1 language-driven: the caption and the 3 captions nearest to the image",
    "vision": "vision-driven archive, all of it",
    "naive": "#2 the archive's 3 best by alignment (naive)",
    "guided": "#3 its 3 best by guided ranking, Eq. 8",
    "guided, code": "#3 the same, score as in the published code",
    "count": "its 3 that most of the captions name, the own one's first",
    "cluster, best": "#4 guided, the best of each of 3 clusters",
    "cluster, T = 0.1": "#4 guided, one drawn of each of 3 clusters, T = 0.1",
    "cluster, T = 1": "#4 the same, T = 1",
    "softmax": "guided, 3 drawn of the whole archive, T = 1",
}
STEPS = [
    ("caption only", "language"), ("language", "naive"), ("naive", "guided"), ("guided, code", "guided"), ("count", "guided"),
    ("guided", "cluster, best"), ("guided", "cluster, T = 1"), ("naive", "cluster, best"), ("naive", "cluster, T = 1"),
    ("softmax", "cluster, T = 1"),
]  # fmt: skip
SHARES = ("precision", "recall", "rare")
COLUMNS = ("", "precision", "recall", "of the rarely named", "terms", "distinct")


def with_ends(values: Sequence[float], form: str = ".1f") -> str:
    """The mean and, of more than one, its interval by Student's t."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return percent(mean, form)
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return with_interval(mean, (mean - half, mean + half), form)


def expansions(world: World) -> dict[str, Score]:
    """What an archive has that is not ranked, by how it was expanded."""
    found = {"the caption and the 3 captions nearest to the image": all_of(archive(world, by_language(world)))}
    found["the 3 captions nearest to the image"] = all_of(archive(world, by_language(world), include_own=False))
    found["the caption and the 8 captions nearest to the image"] = all_of(archive(world, by_language(world, 8)))
    found["the caption and those of the 3 images nearest to the image"] = all_of(archive(world, by_vision(world, 3)))
    found["the caption and those of the 8 images nearest to the image"] = all_of(archive(world, by_vision(world, 8)))
    return {name: score(world, chosen) for name, chosen in found.items()}


def cells(found: Sequence[dict[str, Score]], names: dict[str, str]) -> list[tuple[str, ...]]:
    """The lines of a table of conditions; ``found`` has what each world gave."""
    rows = []
    for key, name in names.items():
        values = {what: [one[key]._asdict()[what] for one in found] for what in Score._fields}
        shares = (with_ends(values[what]) for what in SHARES)
        rows.append((name, *shares, f"{np.mean(values['terms']):.2f}", f"{np.mean(values['distinct']):.2f}"))
    return rows


def differences(found: Sequence[dict[str, Score]]) -> list[tuple[str, ...]]:
    """The lines of a table of steps from one condition to another."""
    rows = []
    for than, better in STEPS:
        values = [[getattr(one[better], what) - getattr(one[than], what) for one in found] for what in SHARES]
        rows.append((f"{better} − {than}", *(with_ends(each, form="+.1f") for each in values)))
    return rows


def main() -> None:
    parser = bench_parser(__doc__, markdown=True, json=True)
    parser.add_argument("--seeds", type=int, default=5, help="worlds [5]")
    parser.add_argument("--pairs", type=int, default=6000, help="pairs of a world [6000]")
    parser.add_argument("--synonym-pairs", type=int, default=3000, help="pairs of a world with synonyms [3000]")
    parser.add_argument("--neighbours", type=list_of(int), default="8,24", metavar="N,N", help="images of an archive [8,24]")
    parser.add_argument("--steps", type=int, default=5, help="draws over which what is drawn at random is averaged [5]")
    arguments: argparse.Namespace = parser.parse_args()
    about = {"bench": "curate", **surroundings()}
    begun = time.perf_counter()
    titles = {False: f"{arguments.pairs:,} pairs", True: f"{arguments.synonym_pairs:,} pairs, three surface forms a concept"}
    found: dict[str, list[dict[str, Score]]] = {}
    alone: list[dict[str, Score]] = []
    for seed in range(arguments.seeds):
        for synonyms, title in titles.items():
            world = make_world(seed, arguments.synonym_pairs if synonyms else arguments.pairs, synonyms=synonyms)
            for count in arguments.neighbours:
                found.setdefault(f"{title}, N = {count}", []).append(table(world, count, steps=arguments.steps))
                progress(f"seed {seed}: {title}, N = {count}: {time.perf_counter() - begun:.0f} s")
            if not synonyms:
                alone.append(expansions(world))
    seconds = time.perf_counter() - begun

    text = [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:]]
    lines = ["# Concept curation in a generated world", "", f"{made_by(about)}, {seconds:.0f} s; {arguments.seeds} worlds. Percent."]
    lines += [line for part in text for line in ("", part)]
    for title, worlds in found.items():
        lines += section(title, COLUMNS, cells(worlds, ROWS))
        lines += section(f"Differences, {title}", ("step", *COLUMNS[1:4]), differences(worlds))
    lines += section("Expansion alone, " + titles[False], COLUMNS, cells(alone, {name: name for name in alone[0]}))
    publish(lines, arguments.markdown)
    tables = {**found, "expansion": alone}
    plain = {title: [{name: value._asdict() for name, value in one.items()} for one in worlds] for title, worlds in tables.items()}
    write_json(arguments.json, {**about, "seconds": seconds, "worlds": plain})


if __name__ == "__main__":
    main()
