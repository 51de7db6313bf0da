"""Which settings of ``convcrf`` come nearest to ``crf``, found on some photographs and checked on others.

From every photograph ``--masks`` masks are taken, evenly in the logarithm of their area from 64 pixels up, out of the pool that
``ovs-extract | ovs-cluster --no-local`` makes. ``crf`` refines each with its defaults, once as it is (``sharpness`` inf) and once from the
grid that it was cut from. Every other photograph is for fitting: one setting after the other, the value with the highest mean IoU with
``crf`` stays, for ``--rounds`` rounds. The photographs that had no part in the fit give, for the settings as they are and as fitted: that
IoU with its 95 % interval by bootstrap over photographs; *before*, the unrefined mask's IoU with ``crf``; and among the masks that ``crf``
changes, how many ``convcrf`` brings nearer to it (*nearer*) and how many it takes farther away (*farther*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from convcrf import pair_ious
from harness.arguments import bench_parser
from harness.machine import machine
from harness.measure import use_threads
from harness.photographs import SETS, SIZE, described, in_order, pixels_of, recommended, truth_of
from harness.report import progress, show, write_json

from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import Mask, Rle, UInt8
from ovskit.core.refine.convcrf import convcrf_refiner
from ovskit.core.refine.crf import crf_refiner
from ovskit.core.refine.methods.convcrf import ConvCrfOptions
from ovskit.core.refine.methods.crf import CrfOptions
from ovskit.core.runtime.settings import settings_from

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
    pixels = pixels_of(image, name)
    features = described(backbone, image, pixels)
    masks = cluster_regions(features, recommended(backbone), frame=(SIZE, SIZE), crop_features=None).masks
    areas = np.array([mask.area for mask in masks])  # descending
    wanted = np.geomspace(areas[0], SMALLEST, count)
    chosen = [masks[k] for k in sorted({int(np.abs(np.log(areas) - np.log(area)).argmin()) for area in wanted})]
    hard, soft = (crf_refiner(CrfOptions(sharpness=s)).refine(pixels, chosen) for s in (np.inf, CrfOptions().sharpness))
    return Case(pixels, chosen, hard, soft)


def agreement(cases: Sequence[Case], options: ConvCrfOptions) -> list[np.ndarray]:
    """The IoU of each photograph's masks with ``crf``, (2, masks): started from the masks, and from their grids."""
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


def fit(cases: Sequence[Case], start: ConvCrfOptions, rounds: int) -> ConvCrfOptions:
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
                progress(f"{key}={value:g}: {found:.4f} (best so far {most:.4f})")
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
    parser = bench_parser(__doc__, limit=16, sets=SETS, model="builtin", json=True)
    parser.add_argument("--masks", type=int, default=8, help="masks of a photograph [8]")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of fitting; 0 only reports the settings as they are [2]")
    parser.add_argument("--try", dest="others", action="append", default=[], metavar="NAME=X,…", help="report these settings too")
    arguments = parser.parse_args()
    use_threads(1)
    backbone = load_backbone(arguments.model, device=torch.device("cpu"))
    chosen = [(name, image) for name in arguments.sets for image in in_order(truth_of(name, arguments.limit).images)]
    cases = [case_of(name, image, backbone, arguments.masks) for name, image in chosen]
    fitting, others = cases[::2], cases[1::2]
    settings = {"as it is": ConvCrfOptions()}
    if arguments.rounds:
        settings["fitted"] = fit(fitting, ConvCrfOptions(), arguments.rounds)
    for text in arguments.others:
        settings[text] = replace(ConvCrfOptions(), **settings_from(ConvCrfOptions, text.split(",")))
    results, rows, notes = {}, [], []
    for name, options in settings.items():
        own = {key: getattr(options, key) for key in VALUES}
        results[name] = {"settings": own, "start": report(others, options)}
        for start, row in results[name]["start"].items():
            low, high = row["interval"]
            numbers = (row["changed"], row["nearer"], row["farther"])
            rows.append((name, start, f"{row['iou']:.3f} [{low:.3f}, {high:.3f}]", f"{row['before']:.3f}", *numbers))
        notes.append(f"{name}: " + ", ".join(f"{key}={value:g}" for key, value in own.items()))
    about = machine("torch", "numpy", "numba", "pillow", "pycocotools", threads=1)
    columns = ("settings", "start", "IoU", "before", "changed", "nearer", "farther")
    title = f"convcrf's IoU with crf, {len(others)} photographs that had no part in the fit"
    show(title, columns, rows, *notes, about, left=("settings", "start"), width=140)
    write_json(arguments.json, {"bench": "convcrf_fit", "machine": about, **results})


if __name__ == "__main__":
    main()
