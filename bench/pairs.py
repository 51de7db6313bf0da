"""Image-text pairs in tars as img2dataset writes them: how fast they are indexed, read and found, and how large their index is.

Tars are made with a member of image, text and JSON each; the images are of random bytes and not decoded. Times are CPU times of one
thread, the least of several repetitions; files are in the system's cache. ``index`` walks through the tars,
``count`` is what the next job does instead, ``read`` is all pairs in order, ``find`` is all keys in random order, so many at a time, and
``train`` is the shuffled order of training. With ``--tars 100 --pairs 10000`` it is a million pairs and some 8 GB.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import resident, timed
from harness.report import progress, show, write_json

from ovskit.core.formats.pairs.order import PairOrder
from ovskit.core.formats.pairs.pair_set import PairSet
from ovskit.core.runtime.failures import Failures

BATCH = 1024


def make_tars(folder: Path, tars: int, pairs: int, image: int) -> None:
    """Tars of ``pairs`` pairs with images of some ``image`` bytes."""
    rng = np.random.default_rng(0)
    words = ["dog", "grass", "red", "a", "the", "on", "running", "photograph", "of", "2019", "sky", "with"]
    folder.mkdir()
    for k in range(tars):
        with tarfile.open(folder / f"{k:05d}.tar", "w") as tar:
            for j in range(pairs):
                key = f"{k:05d}{j:04d}"
                caption = " ".join(rng.choice(words, int(rng.integers(5, 20))))
                about = {
                    "caption": caption,
                    "url": f"https://example.org/{key}.jpg",
                    "key": key,
                    "status": "success",
                    "width": 256,
                    "height": 256,
                }
                data = rng.bytes(int(rng.integers(image // 2, 2 * image)))
                for suffix, content in ((".jpg", data), (".json", json.dumps(about).encode()), (".txt", caption.encode())):
                    entry = tarfile.TarInfo(key + suffix)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def measured(folder: Path, repeat: int, at_once: int) -> dict[str, float]:
    """Seconds of everything, and the bytes of the index."""
    index = folder / "index"

    def opened() -> PairSet:
        return PairSet([str(folder / "tars")], failures=Failures(skip=False), index_folder=str(index))

    def anew() -> int:
        for path in index.glob("*"):
            path.unlink()
        return opened().count()

    def read() -> int:
        return sum(1 for _ in opened().read())

    total = anew()
    keys = np.array(list(opened().names()))
    keys = keys[np.random.default_rng(0).permutation(len(keys))]

    def find() -> int:
        found = opened()
        asked = (keys[k : k + at_once].tolist() for k in range(0, len(keys), at_once))
        return sum(pair is not None for some in asked for pair in found.find(some))

    def train() -> int:
        found = opened()
        order = PairOrder(found.counts(), seed=0)
        return sum(len(found.at(order.batch(step, 0, 1, BATCH))) for step in range(total // BATCH))

    works: dict[str, Callable[[], int]] = {"index": anew, "count": lambda: opened().count(), "read": read, "find": find, "train": train}
    seconds = {}
    for name, work in works.items():
        progress(name)
        timing = timed(work, repeat, clock=time.process_time)
        assert timing.result == (total // BATCH * BATCH if name == "train" else total)
        seconds[name] = timing.least
    return {"pairs": total, **seconds, "index_bytes": sum(path.stat().st_size for path in index.iterdir())}


def main() -> None:
    parser = bench_parser(__doc__, repeat=3, json=True)
    parser.add_argument("--tars", type=int, default=10, help="tars [10]")
    parser.add_argument("--pairs", type=int, default=5000, help="pairs in each, at most 10000 [5000]")
    parser.add_argument("--image", type=int, default=2048, help="bytes of an image [2048]")
    parser.add_argument("--at-once", type=int, default=100_000, help="keys to find at a time [100000]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        progress("making tars")
        make_tars(Path(temporary) / "tars", arguments.tars, arguments.pairs, arguments.image)
        found = measured(Path(temporary), arguments.repeat, arguments.at_once)
    about = host("ovskit", "numpy")
    rows = [(name, f"{found[name]:.3f}", f"{found['pairs'] / found[name]:,.0f}") for name in ("index", "count", "read", "find", "train")]
    size = f"index: {found['index_bytes'] / found['pairs']:.1f} MB per million pairs"
    title = f"{found['pairs']:,} pairs in {arguments.tars} tars, CPU time of one thread, least of {arguments.repeat}"
    show(title, ("what", "CPU s", "pairs/s"), rows, f"{size}; {resident('VmHWM') / 2**20:.0f} MiB at most in memory; {about}")
    write_json(arguments.json, {"bench": "pairs", **about, **found})


if __name__ == "__main__":
    main()
