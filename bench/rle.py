"""Run-length masks against pycocotools, and masks written straight from a label grid.

150 blob-like masks of 1024² go through every operation of ``ovskit.core.masks.rle`` and of ``pycocotools.mask``, in
one thread; results are compared before they are timed. Then about 200 regions of six nested partitions of a 128 × 128
grid are written at 1024² and 640 × 480. Times are CPU times of the one thread, the least of several repetitions, in
milliseconds; compile time is apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pycocotools.mask as coco
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import in_turns, timed
from harness.report import show, write_json

from ovskit.core.masks import grid as rle_grid
from ovskit.core.masks import rle
from ovskit.core.masks.coverage import coverage
from ovskit.core.masks.overlap import iou
from ovskit.core.masks.runs import run_table
from ovskit.core.records import RunTable

SIDE = 1024
MASKS = 150
GRID = 128


def discs(number: int = MASKS, *, ragged: bool = True) -> list[npt.NDArray[np.uint8]]:
    """Wavy discs of 2 to 60 % of the image's side, which overlap as a pool of regions does; ``ragged`` ones have holes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    masks = []
    for _ in range(number):
        dy, dx = y - rng.uniform(0, SIDE), x - rng.uniform(0, SIDE)
        angle, radius = np.arctan2(dy, dx), SIDE * rng.uniform(0.02, 0.6) ** 1.5
        wave = sum(rng.normal(0, 0.25 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 12 if ragged else 4))
        mask = np.hypot(dy, dx) < radius * (1 + wave)
        if ragged:
            mask &= np.sin(dx / rng.uniform(8, 40)) * np.sin(dy / rng.uniform(8, 40)) < 0.9
        masks.append(mask.astype(np.uint8))
    return masks


def nested_partitions(seed: int = 0) -> npt.NDArray[np.int32]:
    """Six Voronoi-like partitions (6, 128, 128) with ragged borders, each a coarsening of the one before."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:GRID, :GRID] + rng.normal(0, 1.2, (2, GRID, GRID))
    centres = rng.uniform(0, GRID, (90, 2))
    layer = np.argmin((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2, axis=-1)
    layers = [layer]
    for count in (55, 30, 16, 8, 4):
        seeds = rng.uniform(0, GRID, (count, 2))
        parent = np.argmin(((centres[:, None] - seeds[None]) ** 2).sum(-1), axis=1)
        layers.append(parent[layer])
    return np.stack(layers).astype(np.int32)


def least(works: list[Callable[[], Any]], repeat: int) -> list[float]:
    """CPU milliseconds of the fastest run of each, taken in turn, for half a second at least."""
    return [1e3 * timing.least for timing in in_turns(works, repeat, at_least=0.5, clock=time.thread_time)]


def against_pycocotools(repeat: int) -> list[dict[str, Any]]:
    masks = discs()
    columns = [np.asfortranarray(mask) for mask in masks]
    ours = [rle.encode(mask) for mask in masks]
    theirs = [coco.encode(mask) for mask in columns]
    assert [r.counts for r in ours] == [r["counts"] for r in theirs]
    table = run_table(ours)
    none, crowd = [0] * MASKS, [1] * MASKS
    uncompressed = [rle.runs(r).tolist() for r in ours]
    pairs: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("encode, row-major masks", lambda: [rle.encode(m) for m in masks], lambda: [coco.encode(np.asfortranarray(m)) for m in masks]),
        ("encode, column-major masks", lambda: [rle.encode(m) for m in columns], lambda: [coco.encode(m) for m in columns]),
        ("decode", lambda: [rle.decode(r) for r in ours], lambda: [coco.decode(r) for r in theirs]),
        ("area, one by one", lambda: [rle.area(r) for r in ours], lambda: [coco.area(r) for r in theirs]),
        ("bbox, one by one", lambda: [rle.bbox(r) for r in ours], lambda: [coco.toBbox(r).tolist() for r in theirs]),
        ("area and bbox, all at once", lambda: run_table(ours), lambda: (coco.area(theirs), coco.toBbox(theirs))),
        ("union of all", lambda: rle.union(ours).counts, lambda: coco.merge(theirs)["counts"]),
        ("union of pairs", lambda: [rle.union(ours[k : k + 2]).counts for k in range(MASKS - 1)],
         lambda: [coco.merge(theirs[k : k + 2])["counts"] for k in range(MASKS - 1)]),
        ("intersection of pairs", lambda: [rle.intersection(ours[k : k + 2]).counts for k in range(MASKS - 1)],
         lambda: [coco.merge(theirs[k : k + 2], intersect=True)["counts"] for k in range(MASKS - 1)]),
        ("validate lists of runs (frPyObjects)", lambda: [rle.validate(SIDE, SIDE, r) for r in uncompressed],
         lambda: coco.frPyObjects([{"size": [SIDE, SIDE], "counts": r} for r in uncompressed], SIDE, SIDE)),
        ("iou, all pairs", lambda: iou(table, table), lambda: coco.iou(theirs, theirs, none)),
        ("iou, all pairs, from text, two lists", lambda: iou(run_table(ours), run_table(ours)),
         lambda: coco.iou(theirs, theirs, none)),
        ("coverage, all pairs", lambda: coverage(table, table), lambda: coco.iou(theirs, theirs, crowd)),
    ]  # fmt: skip
    found = []
    for name, mine, reference in pairs:
        same(name, mine(), reference())
        fast, slow = least([mine, reference], repeat)
        found.append({"what": name, "ovskit_ms": fast, "pycocotools_ms": slow, "ratio": slow / fast})
    (checked,) = least([lambda: [rle.validate(SIDE, SIDE, r.counts) for r in ours]], repeat)
    found.append({"what": "validate text", "ovskit_ms": checked, "pycocotools_ms": None, "ratio": None})
    return found


def same(name: str, mine: Any, reference: Any) -> None:
    """A speed is worth nothing unless the results are equal."""
    if isinstance(mine, RunTable):
        mine, reference = np.column_stack([mine.areas, mine.bboxes]), np.column_stack(reference)
    elif isinstance(mine, list) and isinstance(mine[0], rle.Rle):
        mine, reference = [r.counts for r in mine], [r["counts"] for r in reference]
    if not np.array_equal(np.asarray(mine), np.asarray(reference)):
        raise SystemExit(f"{name}: the results differ")


def from_grid(repeat: int) -> list[dict[str, Any]]:
    labels = nested_partitions()
    wanted = np.array([(layer, label) for layer in range(len(labels)) for label in np.unique(labels[layer])])
    found = []
    for height, width in ((SIDE, SIDE), (480, 640)):
        rows, cols = rle_grid.edges(GRID, 0, height, height), rle_grid.edges(GRID, 0, width, width)
        cells = np.ix_(np.repeat(np.arange(GRID), np.diff(rows)), np.repeat(np.arange(GRID), np.diff(cols)))

        def dense(height: int = height, width: int = width, cells: Any = cells) -> list[bytes]:
            return [coco.encode(np.asfortranarray((labels[layer] == label)[cells].view(np.uint8)))["counts"] for layer, label in wanted]

        def direct(height: int = height, width: int = width, rows: Any = rows, cols: Any = cols) -> rle_grid.GridMasks:
            return rle_grid.nested_rles(labels, wanted, rows, cols, height, width)

        if [r.counts for r in direct().rles] != dense():
            raise SystemExit("masks from the grid differ from dense ones")
        name = f"{len(wanted)} regions, 6 partitions of {GRID}x{GRID}, to {width}x{height}"
        (fast,), (slow,) = least([direct], repeat), least([dense], 1)
        found.append({"what": name, "ovskit_ms": fast, "pycocotools_ms": slow, "ratio": slow / fast})
    return found


def main() -> None:
    arguments = bench_parser(__doc__, repeat=5, json=True).parse_args()
    first = timed(first_calls, 1).least
    rows = against_pycocotools(arguments.repeat) + from_grid(arguments.repeat)
    about = host("ovskit", "numpy", "numba", "pycocotools")
    title = f"run-length masks: {MASKS} blobs of {SIDE}², CPU time, least of {arguments.repeat} or more, one thread"
    keys = ("ovskit_ms", "pycocotools_ms", "ratio")
    cells = [(row["what"], *("" if row[key] is None else f"{row[key]:.2f}" for key in keys)) for row in rows]
    note = f"first calls (compiling, or loading what is compiled): {first:.2f} s; {about}"
    show(title, ("what", "ovskit ms", "pycocotools ms", "times faster"), cells, note)
    write_json(arguments.json, {"bench": "rle", **about, "first_calls_s": first, "rows": rows})


def first_calls() -> None:
    """Every kernel once, on a small mask."""
    small = rle.encode(np.eye(4, dtype=np.uint8))
    rle.encode(np.asfortranarray(np.eye(4, dtype=np.uint8)))
    rle.decode(small)
    rle.validate(4, 4, [16])
    rle.union([small, small])
    rle.intersection([small, small])
    iou(run_table([small]), run_table([small]))
    edges = rle_grid.edges(4, 0, 8, 8)
    rle_grid.grid_rles(np.eye(4, dtype=np.int32), np.array([1]), edges, edges, 8, 8)


if __name__ == "__main__":
    main()
