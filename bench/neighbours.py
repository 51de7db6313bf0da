"""Curation's search: rows compared with rows a second, beside the machine's matrix product, and what an index finds and costs.

Rows are unit vectors of ``--width`` numbers around ``--groups`` directions with a common one, written as ovs-extract --pool writes them
(float16) and read from disk at every pass, so *find_neighbours* has reading, checking sums and sizes, searching, settling in float64 and
ordering by key in it. *product* is numpy's matrix product of the same blocks with nothing done to the result: the floor. TFLOP/s count two
operations a number. The last table ranks and clusters archives of some ten concepts. The fastest of ``--repeat`` runs counts; one
thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import in_turns, resident, timed
from harness.report import progress, show, write_json

from ovskit.core.curate.index import open_index
from ovskit.core.curate.kernels import unit
from ovskit.core.curate.neighbours import CHUNK, ExactSearch, find_neighbours
from ovskit.core.curate.relevance import Named, rank
from ovskit.core.curate.text_clusters import cluster_concepts, seeds_of
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.records import EmbeddingBlock, Image
from ovskit.core.runtime.progress import unwatched

BLOCK = 256
_PRODUCT = 8192  # rows whose product is the floor
COUNT = 9  # eight neighbours, and one that may be of the same key


def write_rows(path: Path, n: int, width: int, groups: int) -> None:
    """Write ``n`` rows."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, width), np.float32) + 1.0
    model = {"model": "generated", "weights_sha256": None, "dim": width}
    with path.open("wb") as file:
        writer = FeatureWriter(file, FeatureHeader(model, None, "float16", "imgs", "cls"))
        for start in range(0, n, BLOCK):
            size = min(BLOCK, n - start)
            rows = centres[rng.integers(0, groups, size)] + 0.7 * rng.standard_normal((size, width), np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            images = tuple(Image(start + k + 1, f"{(start + k) // 10000:05d}.tar/{start + k:09d}.jpg", 224, 224) for k in range(size))
            writer.write(EmbeddingBlock(images, rows.astype(np.float16)))
        writer.finish()


def keys(rows: RowFiles):
    """The keys of rows, to order equal ones by."""
    return lambda positions: [name.file_name.encode() for name in rows.names(positions)]


def search(path: Path, queries: int, repeat: int) -> list[dict[str, object]]:
    """Exact search, beside the product alone."""
    before = resident("VmHWM")
    with RowFiles([str(path)]) as rows:
        own = np.linspace(0, len(rows) - 1, queries).astype(np.int64)
        asked = unit(rows.take(own))
        find_neighbours(asked, own, rows, COUNT, ExactSearch(rows), keys(rows))
        memory = resident("VmHWM") - before
        block = next(rows.chunks(CHUNK))[1][:_PRODUCT]
        product, whole = in_turns(
            [lambda: asked @ block.T, lambda: find_neighbours(asked, own, rows, COUNT, ExactSearch(rows), keys(rows))], repeat, warm=1
        )
        floor = product.least * len(rows) / len(block)
        work = 2.0 * len(rows) * queries * rows.width
        return [
            {
                "rows": len(rows),
                "queries": queries,
                "product, GFLOP/s": work / floor / 1e9,
                "find_neighbours, GFLOP/s": work / whole.least / 1e9,
                "share": floor / whole.least,
                "comparisons/s": len(rows) * queries / whole.least,
                "file, MB": path.stat().st_size / 1e6,
                "memory besides, MB": memory / 1e6,
            }
        ]


def indices(path: Path, factories: list[str], queries: int, repeat: int) -> list[dict[str, object]]:
    """What indices cost and find."""
    found = []
    with RowFiles([str(path)]) as rows, tempfile.TemporaryDirectory() as folder:
        own = np.linspace(0, len(rows) - 1, queries).astype(np.int64)
        asked = unit(rows.take(own))
        for factory in factories:
            progress(factory)
            kept = Path(folder) / "index"
            made = timed(lambda f=factory, k=kept: open_index(rows, f, COUNT, 0.95, keys(rows), path=k, watch=unwatched), 1)
            index = made.result
            found_in = timed(lambda i=index: find_neighbours(asked, own, rows, COUNT, i, keys(rows)), repeat)
            found.append(
                {
                    "index": factory,
                    "bytes a row": kept.stat().st_size / len(rows),
                    "made and tuned, s": made.least,
                    "nprobe": index.report.nprobe,
                    "recall": index.report.recall,
                    "queries/s": queries / found_in.least,
                }
            )
            kept.unlink()
            kept.with_name("index.json").unlink()
    return found


def ranking(width: int, images: int, repeat: int) -> list[dict[str, object]]:
    """Images ranked and clustered a second."""
    rng = np.random.default_rng(0)
    texts, anchors, others = (unit(rng.standard_normal((n, width), np.float32)) for n in (1200, images, images))
    neighbours = rng.integers(0, images, (images, COUNT - 1))

    def captions() -> Named:
        sizes = rng.integers(0, 4, images)
        ids = [np.sort(rng.choice(1200, size, replace=False)) for size in sizes]
        return Named(np.concatenate(ids).astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    own, theirs = captions(), captions()
    ranked = timed(lambda: rank(anchors, others, texts, neighbours, own, theirs), repeat, warm=1)
    archive = ranked.result
    seeds = seeds_of([str(k) for k in range(images)], 0)
    clustered = timed(lambda: cluster_concepts(texts, archive.ids, archive.starts, 3, seeds), repeat, warm=1)
    return [
        {
            "concepts an archive": len(archive.ids) / images,
            "ranked/s": images / ranked.least,
            "clustered/s": images / clustered.least,
        }
    ]


def main() -> None:
    parser = bench_parser(__doc__, repeat=3, json=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--indices", default="IVF1024,SQ8;IVF1024,Flat")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        progress(f"writing {arguments.rows} rows")
        write_rows(path, arguments.rows, arguments.width, arguments.groups)
        results = {
            "exact search": search(path, arguments.queries, arguments.repeat),
            "indices": indices(path, [one for one in arguments.indices.split(";") if one], arguments.queries, arguments.repeat),
            "ranking": ranking(arguments.width, 20_000, arguments.repeat),
        }
    for title, table in results.items():
        if table:
            show(title, list(table[0]), [[_text(value) for value in row.values()] for row in table])
    machine = host()
    progress(f"{machine['processor']}, {machine['cores']} cores")
    write_json(arguments.json, {**results, "machine": machine})


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1e4 else f"{value:,.0f}"
    return str(value)


if __name__ == "__main__":
    main()
