"""How well, and how fast, the built-in descriptor groups what annotators outlined.

For every photograph: resize to 1024 × 1024, describe, store as float16, merge (SOHES; with ``--local`` also with the
local step), and score the masks against all annotations: class-agnostic average recall over IoU 0.50:0.05:0.95 with at most 1,000 masks a
photograph, in all and by area (32², 96² native pixels). Each is done once with thresholds 0.6..0.1 and
once with fixed region counts. bsds500: every annotator's partition is scored by itself, and the mean over annotators,
weighted by their photographs, is shown. ``±`` is the standard error over photographs, by bootstrap. A set with more than ``--limit``
photographs is read from the first file name on. Times are the median per photograph, and the minimum in JSON.
"""

from __future__ import annotations

import time
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import torch
from harness.arguments import bench_parser
from harness.machine import machine
from harness.measure import timed, use_threads
from harness.photographs import DATA, SETS, SIZE, described, pixels_of, recall_of, truth_of
from harness.report import show, write_json

from ovskit.core.cluster.crop_features import CropExtractor
from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.eval.evaluation import Evaluation, evaluate
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import MaskSet

CUTS = {
    "0.6..0.1": SohesOptions(),
    "counts": SohesOptions(counts=(400, 280, 200, 140, 100, 70, 50, 36, 25, 18, 12, 8, 5, 3)),
}
LOCAL_CUTS = {
    "0.6..0.1, local": SohesOptions(),
    "0.6..0.1, local, --min-local 1": SohesOptions(min_local=1),
    "counts, local": SohesOptions(counts=(400, 280, 200, 140, 100, 70, 50, 36, 25, 18, 12, 8, 5, 3)),
}
AREAS = {"all": "AR@1000", "small": "AR_S", "medium": "AR_M", "large": "AR_L"}


def recalls(own: Evaluation) -> dict[str, float]:
    """AR × 100 of all areas and by area."""
    found = own.metrics()
    return {area: float("nan") if (value := found[metric]) is None else 100 * value for area, metric in AREAS.items()}


def standard_error(own: Evaluation, other: Evaluation | None = None) -> float:
    """The standard error of AR × 100, or of its difference to ``other``'s, over 500 resamples of the photographs."""
    row = own.names.index("AR@1000")
    values = own._resampled(500, 0)[row]
    return float(100 * np.nanstd(values if other is None else values - other._resampled(500, 0)[row]))


def measure(name: str, backbone: Any, limit: int, cuts: dict[str, SohesOptions]) -> dict[str, Any]:
    truth = truth_of(name, limit)
    describe, cluster = [], defaultdict(list)
    found: dict[str, list[MaskSet]] = defaultdict(list)
    crop_extractor = CropExtractor(backbone, str(DATA / name), max_pixels=10**9)
    for image in truth.images:
        pixels = pixels_of(image, name)
        start = time.perf_counter()
        features = described(backbone, image, pixels)
        describe.append(time.perf_counter() - start)
        for cut, options in cuts.items():
            crop_features = partial(crop_extractor, image) if cut in LOCAL_CUTS else None
            start = time.perf_counter()
            found[cut].append(cluster_regions(features, options, frame=(SIZE, SIZE), crop_features=crop_features))
            cluster[cut].append(time.perf_counter() - start)
    result: dict[str, Any] = {"images": len(truth), "descriptor_s": seconds(describe), "cuts": {}}
    for cut in cuts:
        own, counts = evaluate(found[cut], truth, recall_of(name)), [len(masks.masks) for masks in found[cut]]
        result["cuts"][cut] = {
            **recalls(own),
            "standard_error": standard_error(own),
            "masks": float(np.mean(counts)),
            "most_masks": max(counts),
            "cluster_s": seconds(cluster[cut]),
        }
    return result


def seconds(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "min": min(values)}


def crops(backbone: Any) -> float:
    """Seconds per 256 × 256 crop in a batch of 16, the best of five."""
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, 256, 256), dtype=np.uint8))
    return timed(lambda: backbone.extract(batch), 5).least / len(batch)


def main() -> None:
    parser = bench_parser(__doc__, limit=100, sets=SETS, model="handmade", json=True)
    parser.add_argument("--local", action="store_true", help="also with the local step")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and numba [1]")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    backbone = load_backbone(arguments.model, device=torch.device("cpu"))
    results, rows = {}, []
    for name in arguments.sets:
        own = results[name] = measure(name, backbone, arguments.limit, {**CUTS, **(LOCAL_CUTS if arguments.local else {})})
        for cut, row in own["cuts"].items():
            recall = (row["all"], row["standard_error"], row["small"], row["medium"], row["large"])
            times = (own["descriptor_s"]["median"], row["cluster_s"]["median"])
            numbers = (*(f"{value:.1f}" for value in recall), f"{row['masks']:.0f}", row["most_masks"], *(f"{s:.2f}" for s in times))
            rows.append((name, own["images"], cut, *numbers))
    per_crop = crops(backbone)
    about = machine("torch", "numpy", "numba", "pillow", "pycocotools", threads=arguments.threads)
    columns = ("set", "images", "cut", "AR", "±", "AR_S", "AR_M", "AR_L", "masks", "most", "describe s", "cluster s")
    title = f"{backbone.spec.model}, {backbone.spec.dim} channels: AR@1000"
    notes = (f"256 × 256 crops, 16 at a time: {1000 * per_crop:.0f} ms each", about)
    show(title, columns, rows, *notes, left=("set", "cut"), width=140)
    write_json(arguments.json, {"bench": "descriptor", "machine": about, "sets": results, "crop_s": per_crop})


if __name__ == "__main__":
    main()
