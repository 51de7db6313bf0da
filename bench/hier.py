"""The forest of a pool of masks: time an image, against pycocotools' coverage of all pairs.

    python bench/hier.py [--repeat N] [--json FILE]

150 blobs of 1024² (the pool of ``bench/rle.py``'s kind: many overlap, ragged, with holes), and 1,500 smooth ones such as a
whole pipeline gives. The forests are compared before they are timed. Times are wall times of one thread, the least of
several repetitions, in milliseconds; the target is 50 ms for 150 masks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pycocotools.mask as coco
from rich.console import Console
from rich.table import Table

from ovskit.core.hier.coverage_forest import parents
from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Rle

SIDE = 1024


def discs(number: int, *, ragged: bool, seed: int = 0) -> list[Rle]:
    """Wavy discs of 2 to 60 % of the image's side, smooth or with holes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    found = []
    for _ in range(number):
        dy, dx = y - rng.uniform(0, SIDE), x - rng.uniform(0, SIDE)
        angle, radius = np.arctan2(dy, dx), SIDE * rng.uniform(0.02, 0.6) ** 1.5
        wave = sum(rng.normal(0, 0.25 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 12 if ragged else 4))
        mask = np.hypot(dy, dx) < radius * (1 + wave)
        if ragged:
            mask &= np.sin(dx / rng.uniform(8, 40)) * np.sin(dy / rng.uniform(8, 40)) < 0.9
        found.append(rle.encode(mask))
    return found


def by_pycocotools(rles: list[Rle]) -> np.ndarray:
    masks = [{"size": [r.height, r.width], "counts": r.counts} for r in rles]
    inside = coco.iou(masks, masks, [1] * len(masks))
    areas = np.array([coco.area(mask) for mask in masks])  # a list of more than 255 overflows in pycocotools 2.0.11
    ancestor = (inside > 0.9) & (inside.T < 0.9)
    larger = np.where(ancestor, areas[None, :].astype(np.float64), np.inf)
    return np.where(ancestor.any(axis=1), larger.argmin(axis=1), -1)


def least(work: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for what, number, ragged in (("150 ragged discs", 150, True), ("1500 smooth discs", 1500, False)):
        rles = discs(number, ragged=ragged)
        ours, theirs = parents(run_table(rles)), by_pycocotools(rles)
        assert (ours == theirs).all(), "the forests differ"
        times = least(lambda rles=rles: parents(run_table(rles)), arguments.repeat), least(lambda rles=rles: by_pycocotools(rles), 2)
        rows.append({"what": what, "with_parent": int((ours >= 0).sum()), "ovskit_ms": times[0], "pycocotools_ms": times[1]})
    table = Table(title=f"forests of masks of {SIDE}², wall time, least of {arguments.repeat}, one thread")
    for column in ("what", "with a parent", "ovskit ms", "pycocotools ms", "times faster"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        ratio = row["pycocotools_ms"] / row["ovskit_ms"]
        table.add_row(row["what"], str(row["with_parent"]), f"{row['ovskit_ms']:.1f}", f"{row['pycocotools_ms']:.1f}", f"{ratio:.1f}")
    Console().print(table)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    versions = {name: version(name) for name in ("ovskit", "numpy", "numba", "pycocotools")}
    if arguments.json:
        arguments.json.write_text(json.dumps({"bench": "hier", **machine, **versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
