"""The forest of a pool of masks: time an image, against pycocotools' coverage of all pairs.

150 blobs of 1024² (the pool of ``bench/rle.py``'s kind: many overlap, ragged, with holes), and 1,500 smooth ones such as a
whole pipeline gives. The forests are compared before they are timed. Times are wall times of one thread, the least of
several repetitions, in milliseconds; the target is 50 ms for 150 masks.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pycocotools.mask as coco
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import timed
from harness.report import show, write_json
from rle import SIDE, discs

from ovskit.core.hier.coverage_forest import parents
from ovskit.core.masks.rle import encode
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Rle


def by_pycocotools(rles: list[Rle]) -> np.ndarray:
    masks = [{"size": [r.height, r.width], "counts": r.counts} for r in rles]
    inside = coco.iou(masks, masks, [1] * len(masks))
    areas = np.array([coco.area(mask) for mask in masks])  # a list of more than 255 overflows in pycocotools 2.0.11
    ancestor = (inside > 0.9) & (inside.T < 0.9)
    larger = np.where(ancestor, areas[None, :].astype(np.float64), np.inf)
    return np.where(ancestor.any(axis=1), larger.argmin(axis=1), -1)


def main() -> None:
    arguments = bench_parser(__doc__, repeat=7, json=True).parse_args()
    rows = []
    for what, number, ragged in (("150 ragged discs", 150, True), ("1500 smooth discs", 1500, False)):
        rles = [encode(mask) for mask in discs(number, ragged=ragged)]
        ours, theirs = parents(run_table(rles)), by_pycocotools(rles)
        assert (ours == theirs).all(), "the forests differ"
        fast = 1000 * timed(lambda rles=rles: parents(run_table(rles)), arguments.repeat).least
        slow = 1000 * timed(lambda rles=rles: by_pycocotools(rles), 2).least
        rows.append({"what": what, "with_parent": int((ours >= 0).sum()), "ovskit_ms": fast, "pycocotools_ms": slow})
    cells = [
        (
            row["what"],
            row["with_parent"],
            *(f"{x:.1f}" for x in (row["ovskit_ms"], row["pycocotools_ms"], row["pycocotools_ms"] / row["ovskit_ms"])),
        )
        for row in rows
    ]
    title = f"forests of masks of {SIDE}², wall time, least of {arguments.repeat}, one thread"
    show(title, ("what", "with a parent", "ovskit ms", "pycocotools ms", "times faster"), cells)
    write_json(arguments.json, {"bench": "hier", **host("ovskit", "numpy", "numba", "pycocotools"), "rows": rows})


if __name__ == "__main__":
    main()
