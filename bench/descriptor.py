"""How well, and how fast, the built-in descriptor groups what annotators outlined.

    python bench/descriptor.py [--limit N] [--sets coco_entities,bsds500,ccp_parts] [--local] [--threads 1] [--model handmade] [--json FILE]

For every photograph: resize to 1024 × 1024, describe, store as float16, merge (SOHES; with ``--local`` also with the
local step), and score the masks against all annotations: class-agnostic average recall over IoU 0.50:0.05:0.95 with at most 1,000 masks a
photograph (pycocotools), in all and by area (32², 96² native pixels). Each is done once with thresholds 0.6..0.1 and
once with fixed region counts. bsds500: every annotator's partition is scored by itself, and the mean over annotators,
weighted by their photographs, is shown. ``±`` is the standard error over photographs, by bootstrap. Photographs come
from ``$OVSKIT_TEST_DATA`` (default: ../shared/data beside the checkout); a set with more than ``--limit`` is read from
the first file name on. Times are the median per photograph, and the minimum in JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import set_num_threads
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

from ovskit.core.cluster.crop_features import CropExtractor
from ovskit.core.cluster.sohes import SohesOptions, cluster_regions
from ovskit.core.formats.photographs.decoding import decode_image
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import FeatureMap, Image

SIZE = 1024
DATA = Path(os.environ.get("OVSKIT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETS = {"coco_entities": "entities_dev.json", "bsds500": "bsds_val.json", "ccp_parts": "parts_dev.json"}
CUTS = {
    "0.6..0.1": SohesOptions(),
    "counts": SohesOptions(counts=(400, 280, 200, 140, 100, 70, 50, 36, 25, 18, 12, 8, 5, 3)),
}
LOCAL_CUTS = {
    "0.6..0.1, local": SohesOptions(),
    "0.6..0.1, local, --min-local 1": SohesOptions(min_local=1),
    "counts, local": SohesOptions(counts=(400, 280, 200, 140, 100, 70, 50, 36, 25, 18, 12, 8, 5, 3)),
}
AREAS = ("all", "small", "medium", "large")


def recalls(truth: dict[str, Any], results: list[dict[str, Any]], ids: list[int]) -> np.ndarray:
    """Recall averaged over IoU of every (photograph, area range), and how many annotations that is: (photographs, 4, 2)."""
    out = np.zeros((len(ids), len(AREAS), 2))
    if not results:
        return out
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes([dict(result) for result in results]), "segm")  # loadRes writes into them
        judge.params.imgIds = ids
        judge.params.useCats = 0
        judge.params.maxDets = [1, 10, 1000]
        judge.evaluate()
    # evalImgs runs over areas, then photographs; matches are kept, so recall can be resampled without matching again.
    order = sorted(ids)
    for area in range(len(AREAS)):
        for k, image_id in enumerate(order):
            found = judge.evalImgs[area * len(order) + k]
            if found is None:
                continue
            counted = ~np.asarray(found["gtIgnore"], bool)
            hits = (np.asarray(found["gtMatches"]) > 0)[:, counted]
            out[ids.index(image_id), area] = (hits.mean(axis=0).sum(), counted.sum())
    return out


def average(tables: Iterable[np.ndarray], rows: np.ndarray, area: int) -> float:
    """AR × 100 over the given photographs; over several annotators, their mean weighted by photographs."""
    values, weights = [], []
    for table in tables:
        hits, count = table[rows, area].sum(axis=0)
        if count:
            values.append(100 * hits / count)
            weights.append((table[rows, 0, 1] > 0).sum())
    return float(np.average(values, weights=weights)) if values else float("nan")


def measure(name: str, backbone: Any, limit: int, cuts: dict[str, SohesOptions]) -> dict[str, Any]:
    truth = json.loads((DATA / name / SETS[name]).read_bytes())
    images = sorted(truth["images"], key=lambda image: image["file_name"])[:limit]
    ids = [image["id"] for image in images]
    describe, cluster, counts = [], defaultdict(list), defaultdict(list)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    closer = CropExtractor(backbone, str(DATA / name), max_pixels=10**9)
    for image in images:
        path = DATA / name / image["file_name"]
        pixels = decode_image(path.read_bytes(), image["file_name"])
        start = time.perf_counter()
        patch = backbone.extract(backbone.prepare(pixels, SIZE, SIZE)[None]).patch[0].cpu().numpy().astype(np.float16)
        describe.append(time.perf_counter() - start)
        features = FeatureMap(Image(image["id"], image["file_name"], image["width"], image["height"]), np.ascontiguousarray(patch))
        for cut, options in cuts.items():
            look_closer = partial(closer, features.image) if cut in LOCAL_CUTS else None
            start = time.perf_counter()
            masks = cluster_regions(features, options, frame=(SIZE, SIZE), look_closer=look_closer).masks
            cluster[cut].append(time.perf_counter() - start)
            counts[cut].append(len(masks))
            for mask in masks:
                segmentation = {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts.decode()}
                found[cut].append({"image_id": image["id"], "category_id": 1, "segmentation": segmentation, "score": mask.score})
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in truth["annotations"]:
        if annotation["image_id"] in set(ids):
            groups[annotation.get("annotator", 0)].append({**annotation, "category_id": 1})
    result: dict[str, Any] = {"images": len(ids), "descriptor_s": seconds(describe), "cuts": {}}
    rng = np.random.default_rng(0)
    samples = rng.integers(0, len(ids), (500, len(ids)))
    for cut in cuts:
        tables = []
        for partition in groups.values():
            judged = {"info": {}, "images": images, "annotations": partition, "categories": [{"id": 1, "name": "entity"}]}
            tables.append(recalls(judged, found[cut], ids))
        everything = np.arange(len(ids))
        result["cuts"][cut] = {
            **{area: average(tables, everything, k) for k, area in enumerate(AREAS)},
            "standard_error": float(np.std([average(tables, rows, 0) for rows in samples])),
            "masks": float(np.mean(counts[cut])),
            "most_masks": max(counts[cut]),
            "cluster_s": seconds(cluster[cut]),
        }
    return result


def seconds(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values)}


def crops(backbone: Any) -> float:
    """Seconds per 256 × 256 crop in a batch of 16, the best of five."""
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, 256, 256), dtype=np.uint8))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        backbone.extract(batch)
        best = min(best, time.perf_counter() - start)
    return best / len(batch)


def machine(threads: int) -> dict[str, Any]:
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    packages = ("torch", "numpy", "numba", "pillow", "pycocotools")
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "threads": threads,
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=100, help="photographs per set [100]")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--local", action="store_true", help="also with the local step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="handmade")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    names = args.sets.split(",")
    if not set(names) <= set(SETS):
        parser.error(f"--sets: choose from {', '.join(SETS)}")
    if not all((DATA / name / SETS[name]).is_file() for name in names):
        sys.exit(f"no photographs in {DATA}: set OVSKIT_TEST_DATA to the folder that has {', '.join(names)}")
    torch.set_num_threads(args.threads)
    set_num_threads(args.threads)
    backbone = load_backbone(args.model, device=torch.device("cpu"))
    console = Console() if sys.stdout.isatty() else Console(width=140)  # a log has no width of its own
    table = Table(title=f"{backbone.spec.model}, {backbone.spec.dim} channels: AR@1000")
    for column in ("set", "images", "cut", "AR", "±", "AR_S", "AR_M", "AR_L", "masks", "most", "describe s", "cluster s"):
        table.add_column(column, justify="left" if column in ("set", "cut") else "right")
    results = {}
    for name in names:
        results[name] = measure(name, backbone, args.limit, {**CUTS, **(LOCAL_CUTS if args.local else {})})
        for cut, row in results[name]["cuts"].items():
            recall = (row["all"], row["standard_error"], row["small"], row["medium"], row["large"])
            table.add_row(
                name,
                str(results[name]["images"]),
                cut,
                *(f"{value:.1f}" for value in recall),
                f"{row['masks']:.0f}",
                str(row["most_masks"]),
                f"{results[name]['descriptor_s']['median']:.2f}",
                f"{row['cluster_s']['median']:.2f}",
            )
    per_crop = crops(backbone)
    about = machine(args.threads)
    console.print(table)
    console.print(f"256 × 256 crops, 16 at a time: {1000 * per_crop:.0f} ms each")
    console.print(about)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"bench": "descriptor", "machine": about, "sets": results, "crop_s": per_crop}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
