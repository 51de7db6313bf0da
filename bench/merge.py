"""The region-merging kernel of SOHES on synthetic features: time, work, memory.

Three kinds of features, seeded, on grids of 128 × 128 and 32 × 32 patches with 768 channels: nested Voronoi regions
(six levels, each region with a direction of its own, plus noise), the same with 2 % outlier tokens of high norm, which
make the regions around them hubs with hundreds of edges, and smoothed Gaussian noise. Merged down to 0.1, with
partitions at 0.6 … 0.1; one thread. Least and median wall time, and least CPU time, which other processes on the
machine disturb less. Evaluations and heap operations are the same in every run.

The floor is the time to read one row of features for every evaluation at the rate at which one core reads memory.

Memory is measured in a process of its own that has read the features and loaded the compiled code: its peak resident
size over its whole life (VmHWM) less its resident size just before the merge, so an upper bound of what merging adds
to the feature buffer. Compile time is that of a process with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import Timing, resident, timed
from harness.report import show, write_json

from ovskit.core.cluster.merge import MergeSequence, merge_sequence, partition, snapshot_steps

Features = npt.NDArray[np.float32]
THRESHOLDS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
CHANNELS = 768
LEVELS = ((180, 0.45), (75, 0.1), (30, 0.1), (12, 0.1), (5, 0.1), (2, 0.15))  # regions on 128², share of the energy


def nested_voronoi(side: int, seed: int = 0) -> Features:
    """Regions inside regions: two that have their outer m levels in common have the cosine of those levels' shares."""
    rng = np.random.default_rng(seed)
    counts = [max(2, round(count * (side / 128) ** 2)) for count, _ in LEVELS]
    centres = rng.uniform(0, side, (counts[0], 2))
    rows, columns = np.mgrid[:side, :side] + rng.normal(0, 0.5, (2, side, side))
    layer = np.argmin((rows[..., None] - centres[:, 0]) ** 2 + (columns[..., None] - centres[:, 1]) ** 2, axis=-1)
    features = rng.standard_normal((side, side, CHANNELS), np.float32) * np.float32(0.6)
    for count, (_, share) in zip(counts, LEVELS, strict=True):
        seeds = rng.uniform(0, side, (count, 2))
        parent = np.arange(count) if count == len(centres) else np.argmin(((centres[:, None] - seeds) ** 2).sum(-1), axis=1)
        features += (np.sqrt(share) * rng.standard_normal((count, CHANNELS))).astype(np.float32)[parent[layer]]
        layer, centres = parent[layer], centres if count == len(centres) else seeds
    return features


def with_hubs(side: int, seed: int = 0) -> Features:
    """Nested regions where 2 % of the tokens point anywhere, ten times as long."""
    features, rng = nested_voronoi(side, seed), np.random.default_rng(seed + 1)
    outlier = rng.random((side, side)) < 0.02
    features[outlier] = 10 * rng.standard_normal((int(outlier.sum()), CHANNELS), np.float32)
    return features


def smoothed_noise(side: int, seed: int = 0) -> Features:
    """Gaussian noise blurred three times over 3 × 3 patches."""
    features = np.random.default_rng(seed).standard_normal((side, side, CHANNELS), np.float32)
    for _ in range(3):
        for axis in (0, 1):
            features = (np.roll(features, 1, axis) + features + np.roll(features, -1, axis)) / np.float32(3)
    return features


KINDS = {"nested regions": nested_voronoi, "with hubs": with_hubs, "smoothed noise": smoothed_noise}


def run(features: Features) -> tuple[MergeSequence, npt.NDArray[np.int32]]:
    """What a caller does for one image: merge, then label the six partitions."""
    sequence = merge_sequence(features, stop_similarity=THRESHOLDS[-1])
    return sequence, np.stack([partition(sequence, int(step)) for step in snapshot_steps(sequence, THRESHOLDS)])


def measure(kind: str, side: int, repeat: int) -> dict[str, Any]:
    features = KINDS[kind](side)
    wall, cpu = Timing(), Timing()
    for _ in range(repeat):
        buffer = features.copy()
        begin, busy = time.perf_counter(), time.thread_time()
        sequence, labels = run(buffer)
        wall.seconds.append(time.perf_counter() - begin)
        cpu.seconds.append(time.thread_time() - busy)
    return {
        "grid": f"{side}x{side}x{CHANNELS}",
        "kind": kind,
        "least_ms": 1e3 * wall.least,
        "median_ms": 1e3 * wall.median,
        "least_cpu_ms": 1e3 * cpu.least,
        "merges": len(sequence.first),
        "evaluations": sequence.evaluations,
        "heap_operations": sequence.heap_operations,
        "regions": [len(np.unique(level)) for level in labels],
        "peak_extra_mb": peak(features),
    }


SMALL = np.ones((3, 3, 4), np.float32)


def peak(features: Features) -> float | None:
    """MiB that merging adds to the feature buffer at most; None where there is no /proc."""
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        np.save(path, features)
        return child("--peak", str(path))


def own_peak(path: Path) -> float:
    """``peak`` in a process of its own."""
    run(SMALL)
    features = np.load(path)
    before = resident("VmRSS")
    run(features)
    return (resident("VmHWM") - before) / 2**20


def first_call() -> float:
    """Seconds of the first call in this process: of compiling, or of loading what is compiled."""
    return timed(lambda: run(SMALL), 1).least


def compile_seconds() -> float:
    """Seconds of the first call in a process whose cache of compiled code is empty."""
    with tempfile.TemporaryDirectory() as cache:
        return child("--first-call", NUMBA_CACHE_DIR=cache)


def child(*words: str, **variables: str) -> float:
    """The number that this script prints in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def read_gb_s() -> float:
    """How fast one core reads memory that no cache holds: BLAS' dot product of 256 MB with itself, the best of five."""
    values = np.ones(64 << 20, np.float32)
    return values.nbytes / timed(lambda: np.dot(values, values), 5).least / 1e9


def main() -> None:
    parser = bench_parser(__doc__, json=True)
    parser.add_argument("--repeat", type=int, default=9, help="repetitions at 128x128, four times as many at 32x32 [9]")
    parser.add_argument("--no-compile", action="store_true", help="do not measure the compile time")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first-call", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak or arguments.first_call:
        print(own_peak(arguments.peak) if arguments.peak else first_call())
        return
    compiling = None if arguments.no_compile else compile_seconds()
    loading = first_call()
    rows = [measure(kind, side, arguments.repeat * (4 if side == 32 else 1)) for side in (128, 32) for kind in KINDS]
    reading = read_gb_s()
    about = {**host("ovskit", "numpy", "numba"), "read_gb_s": round(reading, 1)}
    cells = [
        (
            row["grid"],
            row["kind"],
            *(f"{row[key]:.1f}" for key in ("least_ms", "median_ms", "least_cpu_ms")),
            f"{row['evaluations'] * CHANNELS * 4 / reading / 1e6:.1f}",
            *(row[key] for key in ("merges", "evaluations", "heap_operations")),
            " ".join(map(str, row["regions"])),
            "" if row["peak_extra_mb"] is None else f"{row['peak_extra_mb']:.1f}",
        )
        for row in rows
    ]
    names = "grid,features,least ms,median,CPU least,floor,merges,evaluations,heap ops,regions at thresholds,extra MiB"
    compiled = "" if compiling is None else f"compiling: {compiling:.1f} s; "
    note = f"{compiled}first call here (compiling, or loading what is compiled): {loading:.2f} s; {about}"
    show(f"region merging, thresholds {THRESHOLDS}, one thread", names.split(","), cells, note, left=("grid", "features"))
    numbers = {"bench": "merge", **about, "compile_s": compiling, "first_call_s": loading, "thresholds": THRESHOLDS, "rows": rows}
    write_json(arguments.json, numbers)


if __name__ == "__main__":
    main()
