"""How far ``convcrf`` agrees with ``crf``, what either does to the masks' recall, and what it costs.

    python bench/convcrf.py [--limit 30] [--sets coco_entities,bsds500,ccp_parts] [--model builtin] [--json FILE]

For every photograph: masks as ``ovs-extract | ovs-cluster --no-local`` makes them, refined by ``crf`` and by ``convcrf``, each with its
defaults. *~crf*: mean IoU of a mask with what ``crf`` makes of it (two empty masks agree), over all masks and over those that
``crf`` keeps, which are those whose IoU before and after is 0.5 or more; *as crf*: the share of masks on whose keeping both agree.
The row ``none`` is how far ``crf`` goes from where it began. AR@1000 as in ``bench/descriptor.py``, of all refined masks and of those
kept. Times are CPU seconds of one thread per photograph, the median; ``crf`` holds the interpreter lock, ``convcrf`` does
not, so only the latter goes faster with more threads. A set with more than ``--limit`` photographs is thinned evenly.
Photographs come from ``$OVSKIT_TEST_DATA`` (default: ../shared/data beside the checkout).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from descriptor import AREAS, DATA, SETS, SIZE, average, machine, recalls
from numba import set_num_threads
from rich.console import Console
from rich.table import Table

from ovskit.core.cluster.sohes import SohesOptions, cluster_regions
from ovskit.core.formats.photographs.decoding import decode_image
from ovskit.core.masks.overlap import iou_of_each
from ovskit.core.masks.runs import run_table
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import FeatureMap, Image, Mask, Rle
from ovskit.core.refine.convcrf import convcrf_refiner
from ovskit.core.refine.crf import crf_refiner

KEPT = 0.5


def pair_ious(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """IoU of every mask with its partner (n,); 1 where both are empty."""
    a, b = run_table(first), run_table(second)
    return np.where((a.areas == 0) & (b.areas == 0), 1.0, iou_of_each(a, b))


def measure(name: str, backbone: Any, limit: int) -> dict[str, Any]:
    truth = json.loads((DATA / name / SETS[name]).read_bytes())
    images = sorted(truth["images"], key=lambda image: image["file_name"])
    images = images[:: max(1, len(images) // limit)][:limit]
    ids = [image["id"] for image in images]
    refiners = {"crf": crf_refiner(), "convcrf": convcrf_refiner()}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    ious, before, times = defaultdict(list), defaultdict(list), defaultdict(list)
    for number, image in enumerate(images):
        pixels = decode_image((DATA / name / image["file_name"]).read_bytes(), image["file_name"])
        patch = backbone.extract(backbone.prepare(pixels, SIZE, SIZE)[None]).patch[0].cpu().numpy().astype(np.float16)
        record = Image(image["id"], image["file_name"], image["width"], image["height"])
        features = FeatureMap(record, np.ascontiguousarray(patch))
        masks: Sequence[Mask] = cluster_regions(features, SohesOptions(), frame=(SIZE, SIZE), look_closer=None).masks
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
            for mask, rle, moved in zip(masks, rles, before[method][-1], strict=True):
                entry = {"image_id": image["id"], "category_id": 1, "score": mask.score}
                entry["segmentation"] = {"size": [rle.height, rle.width], "counts": rle.counts.decode()}
                found[method].append(entry)
                if moved >= KEPT:
                    found[method, "kept"].append(entry)
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in truth["annotations"]:
        if annotation["image_id"] in set(ids):
            groups[annotation.get("annotator", 0)].append({**annotation, "category_id": 1})
    judged = [{"info": {}, "images": images, "annotations": g, "categories": [{"id": 1, "name": "entity"}]} for g in groups.values()]
    everything = np.arange(len(ids))
    samples = np.random.default_rng(0).integers(0, len(ids), (500, len(ids)))
    result: dict[str, Any] = {"images": len(ids), "methods": {}}
    untouched = [recalls(one, found["none"], ids) for one in judged]
    kept_by_crf = np.concatenate(before["crf"]) >= KEPT
    for method in ("none", "crf", "convcrf"):
        tables = [recalls(one, found[method], ids) for one in judged]
        kept = [recalls(one, found[method, "kept"], ids) for one in judged]
        agree, moved = np.concatenate(ious[method]), np.concatenate(before[method])
        gains = [average(tables, rows, 0) - average(untouched, rows, 0) for rows in samples]
        result["methods"][method] = {
            **{area: average(tables, everything, k) for k, area in enumerate(AREAS)},
            "gain_standard_error": float(np.std(gains)),
            "of_kept": average(kept, everything, 0),
            "kept": float((moved >= KEPT).mean()),
            "iou_crf": float(agree.mean()),
            "iou_crf_where_kept": float(agree[kept_by_crf].mean()),
            "keeps_as_crf": float(((moved >= KEPT) == kept_by_crf).mean()),
            "masks": len(agree) / len(ids),
            "cpu_s": {"median": float(np.median(times[method])), "max": max(times[method])} if times[method] else None,
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=30, help="photographs per set [30]")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    names = args.sets.split(",")
    if not set(names) <= set(SETS):
        parser.error(f"--sets: choose from {', '.join(SETS)}")
    if not all((DATA / name / SETS[name]).is_file() for name in names):
        sys.exit(f"no photographs in {DATA}: set OVSKIT_TEST_DATA to the folder that has {', '.join(names)}")
    torch.set_num_threads(1)
    set_num_threads(1)
    backbone = load_backbone(args.model, device=torch.device("cpu"))
    console = Console() if sys.stdout.isatty() else Console(width=150)  # a log has no width of its own
    table = Table(title=f"refined masks of {backbone.spec.model}: agreement with crf, AR@1000 and CPU seconds")
    columns = "set images masks method ~crf ~crf,kept as_crf kept AR ±gain AR_S AR_M AR_L AR_of_kept s"
    for column in columns.split():
        table.add_column(column.replace("_", " "), justify="left" if column in ("set", "method") else "right")
    results = {}
    for name in names:
        results[name] = measure(name, backbone, args.limit)
        for method, row in results[name]["methods"].items():
            agreement = (row["iou_crf"], row["iou_crf_where_kept"], row["keeps_as_crf"], row["kept"])
            recall = (row["all"], row["gain_standard_error"], row["small"], row["medium"], row["large"], row["of_kept"])
            table.add_row(
                name,
                str(results[name]["images"]),
                f"{row['masks']:.0f}",
                method,
                *(f"{value:.3f}" for value in agreement),
                *(f"{value:.1f}" for value in recall),
                f"{row['cpu_s']['median']:.2f}" if row["cpu_s"] else "",
            )
    about = machine(1)
    console.print(table)
    console.print(about)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"bench": "convcrf", "machine": about, "sets": results}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
