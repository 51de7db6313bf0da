"""Which refiner makes better masks of the same masks, at what cost, and how far refiners agree.

    python bench/refine.py [--limit 40] [--sets coco_entities,bsds500,ccp_parts] [--skip 0]
                           [--methods none,snap,guided,snap+guided] [--no-local] [--model builtin] [--size 1024] [--near 0]
                           [--bootstrap 1000] [--json FILE] [--markdown FILE]

Masks are made once per photograph, as ``ovs-extract | ovs-cluster`` makes them, and refined by every method with the command's
defaults; ``a+b`` is one after the other, ``crf:sharpness=inf`` has another setting. Scores by ``ovskit.core.eval``: class-agnostic
AR@1000, in all and by area; on bsds500 every annotator by itself, then their mean. Differences, to the first method and to the one
before, are paired, with 95 % intervals by bootstrap over photographs. Masks are those kept. Seconds are CPU time of one thread per
photograph, the median. *IoU* is the mean over masks that both methods leave something of, before any is dropped; ``--no-iou`` saves the
time. ``--near IOU`` refines only masks that overlap a mask of the ground truth by so much, which is enough to compare refiners by AR:
others seldom come near one, and do not count while there are fewer than a thousand. ``--skip`` leaves out the first photographs of each
set, which the defaults of ``snap`` were chosen on (40). Photographs come from ``$OVSKIT_TEST_DATA`` (default: ../shared/data beside the
checkout).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from descriptor import DATA, SETS, SIZE, machine
from numba import set_num_threads
from quality import command_line
from rich.console import Console
from rich.table import Table

from ovskit.cli.method_settings import parse_fields
from ovskit.core.cluster.crop_features import CropExtractor
from ovskit.core.cluster.sohes import SohesOptions, cluster_regions
from ovskit.core.eval.evaluation import EvalOptions, evaluate
from ovskit.core.formats.photographs.photographs import load_photograph
from ovskit.core.formats.truth.ground_truth import GroundTruth, open_ground_truth
from ovskit.core.masks.overlap import iou, iou_of_each
from ovskit.core.masks.runs import run_table, table_of
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import FeatureMap, Image, MaskSet
from ovskit.core.refine.pipeline import RefineOptions, refine_masks
from ovskit.core.refine.refiner import Refiner
from ovskit.core.refine.registry import load_refiner, options_of

METRICS = ("AR@1000", "AR_S", "AR_M", "AR_L")
EVERYTHING = RefineOptions(min_iou=0, max_area=1)
Methods = dict[str, list[Refiner]]


def masks_of(backbone: Any, image: Image, root: str, pixels: np.ndarray, arguments: argparse.Namespace) -> MaskSet:
    size, spec = arguments.size, backbone.spec
    patch = backbone.extract(backbone.prepare(pixels, size, size)[None]).patch[0].cpu().numpy()
    features = FeatureMap(image, np.ascontiguousarray(patch.astype(np.float16)))
    local = spec.local if arguments.local is None else arguments.local
    closer = partial(CropExtractor(backbone, root, max_pixels=10**9), image) if local else None
    options = SohesOptions() if spec.counts is None else SohesOptions(counts=spec.counts)
    return cluster_regions(features, options, frame=(size, size), look_closer=closer)


def near(masks: MaskSet, truth: MaskSet, least: float) -> MaskSet:
    """The masks with an IoU of at least ``least`` with one of the ground truth."""
    if not least or not masks.masks or not truth.masks:
        return masks
    overlap = iou(table_of(masks), table_of(truth)).max(axis=1)
    return MaskSet(masks.image, tuple(mask for mask, most in zip(masks.masks, overlap, strict=True) if most >= least))


def chain_of(method: str) -> list[Refiner]:
    """``snap+crf:sharpness=inf:margin=8`` as refiners."""
    chain = []
    for part in method.split("+"):
        name, *texts = part.split(":")
        if name != "none":
            chain.append(load_refiner(name, parse_fields(texts, options_of(name)), device="cpu"))
    return chain


def agreement(one: MaskSet, other: MaskSet) -> list[float]:
    """IoU of every mask that is in both sets, by id."""
    theirs = {mask.id: mask.rle for mask in other.masks}
    pairs = [(mask.rle, theirs[mask.id]) for mask in one.masks if mask.id in theirs]
    first, second = (run_table([pair[k] for pair in pairs]) for k in (0, 1))
    return iou_of_each(first, second).tolist()


def measure(name: str, backbone: Any, methods: Methods, arguments: argparse.Namespace) -> dict[str, Any]:
    root = str(DATA / name)
    whole = open_ground_truth(str(DATA / name / SETS[name]))
    order = sorted(range(len(whole)), key=lambda k: whole.images[k].file_name)[arguments.skip : arguments.skip + arguments.limit]
    truth = GroundTruth(whole.what, [whole.images[k] for k in order], lambda k: whole.load(order[k]), whole.categories)
    kept: dict[str, list[MaskSet]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    same: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, image in enumerate(truth.images):
        pixels = load_photograph(image, root, max_pixels=10**9)
        masks = near(masks_of(backbone, image, root, pixels, arguments), truth.load(number), arguments.near)
        whole_sets = {}
        for method, chain in methods.items():
            start = time.process_time()
            kept[method].append(refine_masks(masks, pixels, chain, RefineOptions())[0])
            seconds[method].append(time.process_time() - start)
            if arguments.iou:
                whole_sets[method] = refine_masks(masks, pixels, chain, EVERYTHING)[0]
        for a, b in combinations(whole_sets, 2):
            same[a, b] += agreement(whole_sets[a], whole_sets[b])
    options = EvalOptions(metric="ar", per_annotator=name == "bsds500")
    scored = {method: evaluate(kept[method], truth, options, workers=1) for method in methods}
    first = scored[next(iter(methods))]
    rows = {}
    before = first
    for method, own in scored.items():
        gain = own.difference(first, arguments.bootstrap)["AR@1000"]
        step = own.difference(before, arguments.bootstrap)["AR@1000"]
        before = own
        rows[method] = {
            **{metric: own.metrics()[metric] for metric in METRICS},
            "difference": gain.value,
            "interval": gain.interval,
            "to_the_one_before": {"difference": step.value, "interval": step.interval},
            "masks": own.predicted_masks / len(truth),
            "cpu_s": {"median": float(np.median(seconds[method])), "most": max(seconds[method])},
        }
    means = {f"{a} ~ {b}": float(np.mean(values)) for (a, b), values in same.items() if values}
    return {"images": len(truth), "methods": rows, "iou": means}


def percent(value: float | None, form: str = ".1f") -> str:
    return "–" if value is None else format(100 * value, form)


def gain_of(row: dict[str, Any]) -> str:
    span = row["interval"]
    return percent(row["difference"], "+.1f") + (f" [{percent(span[0], '+.1f')}, {percent(span[1], '+.1f')}]" if span else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=40, help="photographs per set [40]")
    parser.add_argument("--skip", type=int, default=0, help="photographs left out at the beginning [0]")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default="none,snap,guided,snap+guided")
    parser.add_argument("--local", action=argparse.BooleanOptionalAction, help="masks with the local step [as the model recommends]")
    parser.add_argument("--size", type=int, default=SIZE, help=f"of the photographs when they are described [{SIZE}]")
    parser.add_argument("--near", type=float, default=0.0, metavar="IOU", help="refine only masks near the ground truth [0]")
    parser.add_argument("--iou", action=argparse.BooleanOptionalAction, default=True, help="how far refiners agree")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--markdown", metavar="FILE", type=Path)
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
    methods: Methods = {method: chain_of(method) for method in arguments.methods.split(",")}
    console = Console() if sys.stdout.isatty() else Console(width=170)  # a log has no width of its own
    table = Table(title=f"masks of {backbone.spec.model}, refined")
    titles = ("set", "method", *METRICS, f"to {next(iter(methods))}", "to the one before", "masks", "CPU s")
    for column in titles:
        table.add_column(column, justify="left" if column in ("set", "method") else "right")
    results = {}
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name in names:
        results[name] = measure(name, backbone, methods, arguments)
        for method, row in results[name]["methods"].items():
            cells = [
                name,
                method,
                *(percent(row[metric]) for metric in METRICS),
                gain_of(row),
                gain_of(row["to_the_one_before"]),
                f"{row['masks']:.0f}",
                f"{row['cpu_s']['median']:.2f}",
            ]
            table.add_row(*cells)
            lines.append("| " + " | ".join(cells) + " |")
        if arguments.markdown:  # after every set: the whole may take an hour
            head = f"`{command_line()}`, masks of {backbone.spec.model}, {results[name]['images']} photographs a set."
            arguments.markdown.write_text(f"# Refiners compared\n\n{head}\n\n" + "\n".join(lines) + "\n")
    about = machine(1)
    console.print(table)
    for name in names if arguments.iou else []:
        console.print(f"{name}, IoU: " + ", ".join(f"{pair} {value:.2f}" for pair, value in results[name]["iou"].items()))
    console.print(about)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"bench": "refine", "machine": about, "sets": results}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
