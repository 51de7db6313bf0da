"""What follows the merge: partitions, pool, NMS along tree chains, scores, RLEs, COCO lines; no dense mask is made.

The synthetic features of ``bench/merge.py`` at 128 × 128 × 768, six thresholds, masks written at 1024² and 640 × 480; one
thread, least of several runs, stage by stage. The whole is what ``ovs-cluster --no-local`` does with one image beyond
reading its features.
"""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser
from harness.measure import timed
from harness.report import show, write_json
from merge import KINDS, THRESHOLDS

from ovskit.core.cluster import pool as pool_module
from ovskit.core.cluster.float16 import widened
from ovskit.core.cluster.merge import merge_sequence, partition, snapshot_steps
from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.scores import region_scores
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks.grid import edges, nested_rles
from ovskit.core.records import FeatureMap, Image


def least(work: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """The least wall time in ms, and the last result; the first call, which may compile, is not counted."""
    timing = timed(work, repeat, warm=1)
    return 1e3 * timing.least, timing.result


def measure(kind: str, size: tuple[int, int], repeat: int) -> dict[str, Any]:
    patch = KINDS[kind](128).astype(np.float16)
    options = SohesOptions()
    convert_ms, buffer = least(lambda: widened(patch), repeat)
    sequence = merge_sequence(buffer, stop_similarity=THRESHOLDS[-1])
    steps = snapshot_steps(sequence, THRESHOLDS)
    label_ms, labels = least(lambda: np.stack([partition(sequence, int(step)) for step in steps]), repeat)
    flat = labels.reshape(len(steps), -1)
    thin_ms, (sizes, _) = least(lambda: pool_module._thin(flat, options.nms, options.min_patches), repeat)
    rows, scratch = patch.reshape(-1, patch.shape[2]), buffer.reshape(-1)
    score_ms, _ = least(lambda: region_scores(flat, sizes, rows, scratch), repeat)
    pool = pool_module.pool_regions(sequence, steps, patch, buffer, nms=options.nms, min_patches=options.min_patches)
    wanted = np.stack([pool.level, pool.label], axis=1)
    row_edges, col_edges = edges(128, 0, size[0], size[0]), edges(128, 0, size[1], size[1])
    rle_ms, _ = least(lambda: nested_rles(pool.partitions, wanted, row_edges, col_edges, *size), repeat)
    features = FeatureMap(Image(1, "a.jpg", size[1], size[0]), patch)
    all_ms, masks = least(lambda: cluster_regions(features, options, frame=(1024, 1024), crop_features=None), max(3, repeat // 4))

    def write() -> None:
        writer = MasksWriter(io.BytesIO(), MasksHeader())  # type: ignore[arg-type]
        writer.write(masks)
        writer.finish()

    write_ms, _ = least(write, repeat)
    return {
        "kind": kind, "size": f"{size[1]}x{size[0]}", "masks": len(masks.masks), "to_float32_ms": convert_ms,
        "partitions_ms": label_ms, "pool_nms_ms": thin_ms, "scores_ms": score_ms, "rle_ms": rle_ms,
        "pool_nms_rle_ms": label_ms + thin_ms + rle_ms, "write_ms": write_ms, "image_ms": all_ms,
    }  # fmt: skip


def main() -> None:
    arguments = bench_parser(__doc__, repeat=15, json=True).parse_args()
    results = [measure(kind, size, arguments.repeat) for kind in KINDS for size in ((1024, 1024), (480, 640))]
    columns = [column.removesuffix("_ms").replace("_", " ") for column in results[0]]
    rows = [[f"{value:.2f}" if isinstance(value, float) else value for value in result.values()] for result in results]
    show("after the merge, ms per image (least)", columns, rows)
    about = {"machine": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}
    write_json(arguments.json, {**about, "results": results})


if __name__ == "__main__":
    main()
