"""How far ``convcrf`` agrees with ``crf``, what either does to the masks' recall, and what it costs.

For every photograph: masks as ``ovs-extract | ovs-cluster --no-local`` makes them, refined by ``crf`` and by ``convcrf``, each with its
defaults. *~crf*: mean IoU of a mask with what ``crf`` makes of it (two empty masks agree), over all masks and over those that
``crf`` keeps, which are those whose IoU before and after is 0.5 or more; *as crf*: the share of masks on whose keeping both agree.
The row ``none`` is how far ``crf`` goes from where it began. AR@1000 as in ``bench/descriptor.py``, of all refined masks and of those
kept. Times are CPU seconds of one thread per photograph, the median; ``crf`` holds the interpreter lock, ``convcrf`` does
not, so only the latter goes faster with more threads. A set with more than ``--limit`` photographs is thinned evenly.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from descriptor import recalls, standard_error
from harness.arguments import bench_parser
from harness.machine import machine
from harness.measure import use_threads
from harness.photographs import SETS, SIZE, described, pixels_of, recall_of, truth_of
from harness.report import show, write_json

from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.eval.evaluation import evaluate
from ovskit.core.masks.overlap import iou_of_each
from ovskit.core.masks.rle import area, bbox
from ovskit.core.masks.runs import run_table
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import Mask, MaskSet, Rle
from ovskit.core.refine.convcrf import convcrf_refiner
from ovskit.core.refine.crf import crf_refiner
from ovskit.core.refine.methods.convcrf import ConvCrfOptions
from ovskit.core.refine.methods.crf import CrfOptions

KEPT = 0.5


def pair_ious(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """IoU of every mask with its partner (n,); 1 where both are empty."""
    a, b = run_table(first), run_table(second)
    return np.where((a.areas == 0) & (b.areas == 0), 1.0, iou_of_each(a, b))


def measure(name: str, backbone: Any, limit: int) -> dict[str, Any]:
    truth = truth_of(name, limit, spread=True)
    refiners = {"crf": crf_refiner(CrfOptions()), "convcrf": convcrf_refiner(ConvCrfOptions())}
    found: dict[Any, list[MaskSet]] = defaultdict(list)
    ious, before, times = defaultdict(list), defaultdict(list), defaultdict(list)
    for number, image in enumerate(truth.images):
        pixels = pixels_of(image, name)
        features = described(backbone, image, pixels)
        masks: Sequence[Mask] = cluster_regions(features, SohesOptions(), frame=(SIZE, SIZE), crop_features=None).masks
        after: dict[str, list[Rle]] = {"none": [mask.rle for mask in masks]}
        for method, refiner in refiners.items():
            if not number:
                refiner.refine(pixels, masks[:1])  # compiles or loads
            start = time.thread_time()
            after[method] = refiner.refine(pixels, masks)
            times[method].append(time.thread_time() - start)
        for method, rles in after.items():
            ious[method].append(pair_ious(rles, after["crf"]))
            before[method].append(pair_ious(rles, after["none"]))
            refined = [replace(mask, rle=own, area=area(own), bbox=bbox(own)) for mask, own in zip(masks, rles, strict=True)]
            kept = [mask for mask, moved in zip(refined, before[method][-1], strict=True) if moved >= KEPT]
            found[method].append(MaskSet(image, tuple(refined)))
            found[method, "kept"].append(MaskSet(image, tuple(kept)))
    scored = {key: evaluate(sets, truth, recall_of(name)) for key, sets in found.items()}
    result: dict[str, Any] = {"images": len(truth), "methods": {}}
    kept_by_crf = np.concatenate(before["crf"]) >= KEPT
    for method in ("none", "crf", "convcrf"):
        agree, moved = np.concatenate(ious[method]), np.concatenate(before[method])
        result["methods"][method] = {
            **recalls(scored[method]),
            "gain_standard_error": standard_error(scored[method], scored["none"]),
            "of_kept": recalls(scored[method, "kept"])["all"],
            "kept": float((moved >= KEPT).mean()),
            "iou_crf": float(agree.mean()),
            "iou_crf_where_kept": float(agree[kept_by_crf].mean()),
            "keeps_as_crf": float(((moved >= KEPT) == kept_by_crf).mean()),
            "masks": len(agree) / len(truth),
            "cpu_s": {"median": float(np.median(times[method])), "max": max(times[method])} if times[method] else None,
        }
    return result


def main() -> None:
    arguments = bench_parser(__doc__, limit=30, sets=SETS, model="builtin", json=True).parse_args()
    use_threads(1)
    backbone = load_backbone(arguments.model, device=torch.device("cpu"))
    results, rows = {}, []
    for name in arguments.sets:
        results[name] = measure(name, backbone, arguments.limit)
        for method, row in results[name]["methods"].items():
            agreement = [f"{row[key]:.3f}" for key in ("iou_crf", "iou_crf_where_kept", "keeps_as_crf", "kept")]
            recall = [f"{row[key]:.1f}" for key in ("all", "gain_standard_error", "small", "medium", "large", "of_kept")]
            seconds = f"{row['cpu_s']['median']:.2f}" if row["cpu_s"] else ""
            rows.append((name, results[name]["images"], f"{row['masks']:.0f}", method, *agreement, *recall, seconds))
    about = machine("torch", "numpy", "numba", "pillow", "pycocotools", threads=1)
    names = "set images masks method ~crf ~crf,kept as_crf kept AR ±gain AR_S AR_M AR_L AR_of_kept s"
    columns = [column.replace("_", " ") for column in names.split()]
    title = f"refined masks of {backbone.spec.model}: agreement with crf, AR@1000 and CPU seconds"
    show(title, columns, rows, about, left=("set", "method"))
    write_json(arguments.json, {"bench": "convcrf", "machine": about, "sets": results})


if __name__ == "__main__":
    main()
