"""Which settings of ``convcrf`` come nearest to ``crf``, found on some photographs and checked on others.

    python bench/convcrf_fit.py [--limit 16] [--sets coco_entities,bsds500,ccp_parts] [--masks 8] [--rounds 2]
                                [--try iterations=10,confidence=0.9997] [--json FILE]

Of every photograph so many masks, evenly in the logarithm of their area from 64 pixels up, from the pool that ``ovs-extract | ovs-cluster
--no-local`` makes; each refined by ``crf`` at its defaults, once as it is (``sharpness`` inf) and once from the grid that it was cut
from. Every other photograph is for fitting: one setting after the other, the value with the highest mean IoU with ``crf`` stays, for so
many rounds. Reported for the settings as they are and as found, on the photographs that had no part in it: that IoU with its 95 % interval
by bootstrap over photographs; *before*, the unrefined mask's IoU with ``crf``; and of the masks that ``crf`` changes, in how many
``convcrf`` is nearer to it than the mask was (*nearer*), and farther. Photographs come from ``$OVSKIT_TEST_DATA`` (default: ../shared/data
beside the checkout).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from convcrf import pair_ious
from descriptor import DATA, SETS, SIZE, machine
from numba import set_num_threads
from quality import settings_from, truth_of
from rich.console import Console
from rich.table import Table

from ovskit.core.cluster.sohes import SohesOptions, cluster_regions
from ovskit.core.formats.photographs.photographs import load_photograph
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import FeatureMap, Mask, Rle, UInt8
from ovskit.core.refine.convcrf import convcrf_refiner
from ovskit.core.refine.crf import crf_refiner
from ovskit.core.refine.methods.convcrf import ConvCrfOptions
from ovskit.core.refine.methods.crf import CrfOptions

SMALLEST = 64
VALUES: dict[str, tuple[float, ...]] = {
    "confidence": (0.99, 0.997, 0.999, 0.9997),
    "gaussian_compat": (2, 3, 5, 7),
    "bilateral_compat": (5, 7, 10, 14),
    "bilateral_sxy": (25, 35, 50),
    "bilateral_srgb": (4, 5, 6, 7),
    "iterations": (5, 10),
}


class Case(NamedTuple):
    """One photograph's masks, and what ``crf`` makes of them: from the masks, and from their grids."""

    pixels: UInt8
    masks: list[Mask]
    hard: list[Rle]
    soft: list[Rle]


def case_of(name: str, image: Any, backbone: Any, count: int) -> Case:
    pixels = load_photograph(image, str(DATA / name), max_pixels=10**9)
    patch = backbone.extract(backbone.prepare(pixels, SIZE, SIZE)[None]).patch[0].cpu().numpy().astype(np.float16)
    counts = backbone.spec.counts
    options = SohesOptions() if counts is None else SohesOptions(counts=counts)
    masks = cluster_regions(FeatureMap(image, np.ascontiguousarray(patch)), options, frame=(SIZE, SIZE), look_closer=None).masks
    areas = np.array([mask.area for mask in masks])  # descending
    wanted = np.geomspace(areas[0], SMALLEST, count)
    chosen = [masks[k] for k in sorted({int(np.abs(np.log(areas) - np.log(area)).argmin()) for area in wanted})]
    hard, soft = (crf_refiner(CrfOptions(sharpness=s)).refine(pixels, chosen) for s in (np.inf, CrfOptions().sharpness))
    return Case(pixels, chosen, hard, soft)


def agreement(cases: Sequence[Case], options: ConvCrfOptions) -> list[np.ndarray]:
    """Of every photograph its masks' IoU with ``crf``, (2, masks): started from the masks, and from their grids."""
    hard, soft = convcrf_refiner(replace(options, sharpness=np.inf)), convcrf_refiner(options)
    return [
        np.stack(
            [
                pair_ious(hard.refine(case.pixels, case.masks), case.hard),
                pair_ious(soft.refine(case.pixels, case.masks), case.soft),
            ]
        )
        for case in cases
    ]


def fit(cases: Sequence[Case], start: ConvCrfOptions, rounds: int, console: Console) -> ConvCrfOptions:
    def score(options: ConvCrfOptions) -> float:
        return float(np.concatenate(agreement(cases, options), axis=1).mean())

    best, most = start, score(start)
    for _ in range(rounds):
        before = best
        for key, values in VALUES.items():
            for value in values:
                if value == getattr(best, key):
                    continue
                tried = replace(best, **{key: value})
                found = score(tried)
                console.print(f"{key}={value:g}: {found:.4f} (best so far {most:.4f})")
                if found > most:
                    best, most = tried, found
        if best == before:
            break
    return best


def report(cases: Sequence[Case], options: ConvCrfOptions) -> dict[str, Any]:
    found = agreement(cases, options)
    rows: dict[str, Any] = {}
    random = np.random.default_rng(0)
    for row, name in enumerate(("hard", "soft")):
        before = [pair_ious([m.rle for m in case.masks], getattr(case, name)) for case in cases]
        own = [one[row] for one in found]
        means = [float(np.concatenate([own[k] for k in random.integers(0, len(own), len(own))]).mean()) for _ in range(500)]
        first, now = np.concatenate(before), np.concatenate(own)
        changed = first < 1
        rows[name] = {
            "iou": float(now.mean()),
            "interval": [float(v) for v in np.percentile(means, (2.5, 97.5))],
            "before": float(first.mean()),
            "changed": int(changed.sum()),
            "nearer": int((now > first)[changed].sum()),
            "farther": int((now < first)[changed].sum()),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=16, help="photographs per set, half of them for fitting [16]")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--masks", type=int, default=8, help="of a photograph [8]")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--rounds", type=int, default=2, help="0: only report the settings as they are")
    parser.add_argument("--try", dest="others", action="append", default=[], metavar="NAME=X,…", help="report these settings too")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    names = arguments.sets.split(",")
    if not set(names) <= set(SETS):
        parser.error(f"--sets: choose from {', '.join(SETS)}")
    if not all((DATA / name / SETS[name]).is_file() for name in names):
        sys.exit(f"no photographs in {DATA}: set OVSKIT_TEST_DATA to the folder that has {', '.join(names)}")
    torch.set_num_threads(1)
    set_num_threads(1)
    cv2.setNumThreads(1)
    backbone = load_backbone(arguments.model, device=torch.device("cpu"))
    console = Console() if sys.stdout.isatty() else Console(width=140)
    cases = [case_of(name, image, backbone, arguments.masks) for name in names for image in truth_of(name, arguments.limit)[1]]
    fitting, others = cases[::2], cases[1::2]
    settings = {"as it is": ConvCrfOptions()}
    if arguments.rounds:
        settings["fitted"] = fit(fitting, ConvCrfOptions(), arguments.rounds, console)
    for text in arguments.others:
        settings[text] = replace(ConvCrfOptions(), **settings_from(ConvCrfOptions, text.split(",")))
    table = Table(title=f"convcrf's IoU with crf, {len(others)} photographs that had no part in the fit")
    for column in ("settings", "start", "IoU", "before", "changed", "nearer", "farther"):
        table.add_column(column, justify="left" if column in ("settings", "start") else "right")
    results: dict[str, Any] = {}
    for name, options in settings.items():
        own = {key: getattr(options, key) for key in VALUES}
        results[name] = {"settings": own, "start": report(others, options)}
        for start, row in results[name]["start"].items():
            low, high = row["interval"]
            numbers = (row["changed"], row["nearer"], row["farther"])
            table.add_row(name, start, f"{row['iou']:.3f} [{low:.3f}, {high:.3f}]", f"{row['before']:.3f}", *map(str, numbers))
        console.print(f"{name}: " + ", ".join(f"{key}={value:g}" for key, value in own.items()))
    console.print(table)
    about = machine(1)
    console.print(about)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"bench": "convcrf_fit", "machine": about, **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
