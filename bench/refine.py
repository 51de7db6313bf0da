"""Which refiner makes better masks of the same masks, at what cost, and how far refiners agree.

Masks are made once per photograph, as ``ovs-extract | ovs-cluster`` makes them, and refined by every method with the command's
defaults; ``a+b`` is one after the other, ``crf:sharpness=inf`` has another setting. Scores by ``ovskit.core.eval``: class-agnostic
AR@1000, in all and by area; on bsds500 every annotator by itself, then their mean. Differences, to the first method and to the one
before, are paired, with 95 % intervals by bootstrap over photographs. Masks are those kept. Seconds are CPU time of one thread per
photograph, the median. *IoU* is the mean over masks that both methods leave something of, before any is dropped; ``--no-iou`` saves the
time. ``--near IOU`` refines only masks that overlap a mask of the ground truth by so much, which is enough to compare refiners by AR:
others seldom come near one, and do not count while there are fewer than a thousand. ``--skip`` leaves out the first photographs of each
set, which the defaults of ``snap`` were chosen on (40).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from harness.arguments import bench_parser, list_of
from harness.machine import command_line, machine
from harness.measure import use_threads
from harness.photographs import DATA, SETS, SIZE, described, pixels_of, recall_of, recommended, truth_of
from harness.report import percent, show, table, with_interval, write_json
from quality import refiner_of

from ovskit.core.cluster.crop_features import CropExtractor
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.eval.evaluation import evaluate
from ovskit.core.masks.overlap import iou, iou_of_each
from ovskit.core.masks.runs import run_table, table_of
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import Image, MaskSet
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.pipeline import refine_masks
from ovskit.core.refine.refiner import Refiner

METRICS = ("AR@1000", "AR_S", "AR_M", "AR_L")
EVERYTHING = RefineOptions(min_iou=0, max_area=1)
Methods = dict[str, list[Refiner]]


def masks_of(backbone: Any, image: Image, name: str, pixels: np.ndarray, arguments: argparse.Namespace) -> MaskSet:
    size = arguments.size
    local = backbone.spec.local if arguments.local is None else arguments.local
    crop_features = partial(CropExtractor(backbone, str(DATA / name), max_pixels=10**9), image) if local else None
    features = described(backbone, image, pixels, size)
    return cluster_regions(features, recommended(backbone), frame=(size, size), crop_features=crop_features)


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
            chain.append(refiner_of(name, texts))
    return chain


def agreement(one: MaskSet, other: MaskSet) -> list[float]:
    """IoU of every mask that is in both sets, by id."""
    theirs = {mask.id: mask.rle for mask in other.masks}
    pairs = [(mask.rle, theirs[mask.id]) for mask in one.masks if mask.id in theirs]
    first, second = (run_table([pair[k] for pair in pairs]) for k in (0, 1))
    return iou_of_each(first, second).tolist()


def measure(name: str, backbone: Any, methods: Methods, arguments: argparse.Namespace) -> dict[str, Any]:
    truth = truth_of(name, arguments.limit, arguments.skip)
    kept: dict[str, list[MaskSet]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    same: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, image in enumerate(truth.images):
        pixels = pixels_of(image, name)
        masks = near(masks_of(backbone, image, name, pixels, arguments), truth.load(number), arguments.near)
        whole_sets = {}
        for method, chain in methods.items():
            start = time.process_time()
            kept[method].append(refine_masks(masks, pixels, chain, RefineOptions())[0])
            seconds[method].append(time.process_time() - start)
            if arguments.iou:
                whole_sets[method] = refine_masks(masks, pixels, chain, EVERYTHING)[0]
        for a, b in combinations(whole_sets, 2):
            same[a, b] += agreement(whole_sets[a], whole_sets[b])
    scored = {method: evaluate(kept[method], truth, recall_of(name), workers=1) for method in methods}
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


def cells_of(name: str, method: str, row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    recall = [percent(row[metric]) for metric in METRICS]
    gains = [with_interval(gain["difference"], gain["interval"], "+.1f") for gain in (row, row["to_the_one_before"])]
    return [name, method, *recall, *gains, f"{row['masks']:.0f}", f"{row['cpu_s']['median']:.2f}"]


def main() -> None:
    parser = bench_parser(__doc__, limit=40, skip=True, sets=SETS, model="builtin", bootstrap=1000, json=True, markdown=True)
    parser.add_argument("--methods", type=list_of(str), default="none,snap,guided,snap+guided", help="[none,snap,guided,snap+guided]")
    parser.add_argument("--local", action=argparse.BooleanOptionalAction, help="masks with the local step [as the model recommends]")
    parser.add_argument("--size", type=int, default=SIZE, help=f"pixels a side at which photographs are described [{SIZE}]")
    parser.add_argument("--near", type=float, default=0.0, metavar="IOU", help="refine only masks near the ground truth [0]")
    parser.add_argument("--iou", action=argparse.BooleanOptionalAction, default=True, help="how far refiners agree")
    arguments = parser.parse_args()
    use_threads(1)
    backbone = load_backbone(arguments.model, device=torch.device("cpu"))
    methods: Methods = {method: chain_of(method) for method in arguments.methods}
    columns = ("set", "method", *METRICS, f"to {arguments.methods[0]}", "to the one before", "masks", "CPU s")
    results, rows = {}, []
    for name in arguments.sets:
        results[name] = measure(name, backbone, methods, arguments)
        rows += [cells_of(name, method, row) for method, row in results[name]["methods"].items()]
        if arguments.markdown:  # after every set: the whole may take an hour
            head = f"`{command_line()}`, masks of {backbone.spec.model}, {results[name]['images']} photographs a set."
            arguments.markdown.write_text("\n".join(["# Refiners compared", "", head, "", *table(columns, rows), ""]))
    agreements = [
        f"{name}, IoU: " + ", ".join(f"{pair} {value:.2f}" for pair, value in results[name]["iou"].items())
        for name in (arguments.sets if arguments.iou else [])
    ]
    about = machine("torch", "numpy", "numba", "pillow", "pycocotools", threads=1)
    show(f"masks of {backbone.spec.model}, refined", columns, rows, *agreements, about, left=("set", "method"), width=170)
    write_json(arguments.json, {"bench": "refine", "machine": about, "sets": results})


if __name__ == "__main__":
    main()
