"""What reading a masks stream costs: CPU seconds for 100,000 masks, beside those of parsing its JSON alone.

    python bench/read_masks.py [--masks N] [--repeat N] [--json FILE]

The stream is one of ours, written by ``MasksWriter`` into memory: 200 masks an image of 640 × 480, wavy blobs of 1 to 60 % of the image's
side as a pipeline gives them, a third of them as patches of 16 pixels would draw them, with scores, levels and parents.
Three ways to read it:

- *json*: every annotation line through ``orjson.loads`` and nothing else, the floor that no reader of this format gets below;
- *open_masks*: masks that are checked, with areas, boxes and runs, image by image;
- *open_masks and runs*: the same, and every image's runs at hand, which is what a stage that compares masks begins with.

CPU seconds are the process's own (user and system), one thread, the median of several repetitions; the least is there too. What is
read is compared with what was written before anything is timed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.masks import rle
from ovskit.core.masks.runs import Measured, table_of
from ovskit.core.records import Image, Mask, MaskSet

HEIGHT, WIDTH = 480, 640
PER_IMAGE = 200
SHAPES = 1000


def shapes(seed: int = 0) -> list[Measured]:
    """Blobs with their areas and boxes."""
    rng = np.random.default_rng(seed)
    found: list[Measured] = []
    while len(found) < SHAPES:
        radius = HEIGHT * rng.uniform(0.01, 0.6) ** 1.5
        middle, reach = (int(rng.uniform(0, HEIGHT)), int(rng.uniform(0, WIDTH))), int(2 * radius) + 1
        top, bottom = max(0, middle[0] - reach), min(HEIGHT, middle[0] + reach)
        left, right = max(0, middle[1] - reach), min(WIDTH, middle[1] + reach)
        dy, dx = np.mgrid[top:bottom, left:right].astype(np.float32) - np.array(middle, np.float32)[:, None, None]
        if len(found) % 3 == 0:
            dy, dx = dy // 16 * 16 + 8, dx // 16 * 16 + 8
        angle = np.arctan2(dy, dx)
        wave = sum(rng.normal(0, 0.25 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 8))
        whole = np.zeros((HEIGHT, WIDTH), np.bool_)
        whole[top:bottom, left:right] = np.hypot(dy, dx) < radius * (1 + wave)
        if whole.any():
            one = rle.encode(whole)
            found.append(Measured(one, rle.area(one), rle.bbox(one)))
    return found


def stream(masks: int, seed: int = 0) -> bytes:
    """A masks stream with so many masks."""
    pool = shapes(seed)
    rng = np.random.default_rng(seed + 1)
    out = io.BytesIO()
    writer = MasksWriter(out, MasksHeader(root="photographs"))
    for k in range(-(-masks // PER_IMAGE)):
        image = Image(k + 1, f"folder-{k // 100:04d}/{k:08d}.jpg", WIDTH, HEIGHT)
        count = min(PER_IMAGE, masks - k * PER_IMAGE)
        made = []
        for number, place in enumerate(rng.integers(0, SHAPES, count).tolist(), 1):
            parent = int(rng.integers(1, number)) if number > 1 and rng.random() < 0.6 else None
            extra = {"threshold": float(rng.integers(1, 7)) / 10, "source": "global", "level": int(rng.integers(0, 4))}
            score = round(float(rng.random()), 6)
            made.append(Mask(number, image.id, *pool[place], score=score, parent_id=parent, extra=extra))
        writer.write(MaskSet(image, tuple(made)))
    writer.finish()
    return out.getvalue()


def by_json(data: bytes) -> int:
    lines = io.BytesIO(data)
    lines.readline()
    count = 0
    for line in lines:
        if line.startswith(b"]"):
            return count
        orjson.loads(line.rstrip().rstrip(b","))
        count += 1
    return count


def by_open_masks(data: bytes) -> int:
    _, sets = open_masks(io.BytesIO(data), "the stream")
    return sum(len(masks.masks) for masks in sets)


def with_runs(data: bytes) -> int:
    _, sets = open_masks(io.BytesIO(data), "the stream")
    return sum(len(table_of(masks)) for masks in sets)


def check(data: bytes) -> None:
    """Raises AssertionError if what is read is not what was written."""
    header, sets = open_masks(io.BytesIO(data), "the stream")
    out = io.BytesIO()
    writer = MasksWriter(out, header)
    for masks in sets:
        writer.write(masks)
    writer.finish()
    assert out.getvalue() == data, "what is read and written again differs"


def seconds(work: Callable[[bytes], int], data: bytes, repeat: int) -> list[float]:
    found = []
    for _ in range(repeat):
        start = time.process_time()
        work(data)
        found.append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = stream(arguments.masks)
    check(stream(2 * PER_IMAGE))
    rows = []
    for what, work in (("json", by_json), ("open_masks", by_open_masks), ("open_masks and runs", with_runs)):
        assert work(data) == arguments.masks
        times = seconds(work, data, arguments.repeat)
        median = statistics.median(times)
        rows.append({"what": what, "cpu_s": median, "least_s": min(times), "masks_s": arguments.masks / median})
    table = Table(title=f"reading {arguments.masks} masks, {len(data) / 1e6:.0f} MB, CPU time, median of {arguments.repeat}, one thread")
    for column in ("what", "CPU s", "least s", "masks/s", "times json"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        numbers = f"{row['cpu_s']:.2f}", f"{row['least_s']:.2f}", f"{row['masks_s']:,.0f}", f"{row['cpu_s'] / rows[0]['cpu_s']:.1f}"
        table.add_row(row["what"], *numbers)
    Console().print(table)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    versions = {name: version(name) for name in ("ovskit", "numpy", "numba", "orjson")}
    if arguments.json:
        arguments.json.write_text(json.dumps({"bench": "read_masks", **machine, **versions, "bytes": len(data), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
