"""How much memory the guided filter takes beside the photograph and its masks, whatever their size.

Each case is a process of its own: an image of noise with one large mask, a disc with holes, which has a boundary all over. Reported is
how far the resident memory rises while the mask is filtered, at most (``VmHWM`` after it was set back, so Linux only), in MB and in
bytes a pixel of the mask's box; and CPU seconds of one thread. The kernels are compiled before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from harness.arguments import bench_parser, list_of
from harness.machine import machine
from harness.measure import resident
from harness.report import show, write_json

from ovskit.core.masks import rle
from ovskit.core.records import Mask, UInt8
from ovskit.core.refine.guided import guided_refiner
from ovskit.core.refine.methods.guided import GuidedOptions


def scene(side: int) -> tuple[UInt8, Mask]:
    """Noise, and a disc with a hole every 100 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 2, 1, -1)
    mask[50::100, 50::100] = 0
    outline = rle.encode(mask)
    return pixels, Mask(1, 1, outline, rle.area(outline), rle.bbox(outline))


def measure(megapixels: float, radius: int) -> dict[str, float]:
    cv2.setNumThreads(1)
    refiner = guided_refiner(GuidedOptions(radius=radius))
    small = scene(200)
    refiner.refine(small[0], [small[1]])
    side = round((megapixels * 1e6) ** 0.5)
    pixels, mask = scene(side)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.process_time()
    refiner.refine(pixels, [mask])
    return {"bytes": resident("VmHWM") - before, "pixels": side * side, "cpu_s": time.process_time() - start}


def main() -> None:
    parser = bench_parser(__doc__, json=True)
    parser.add_argument("--megapixels", type=list_of(float), default="1,4,16,100", help="sizes of the image [1,4,16,100]")
    parser.add_argument("--radius", type=list_of(int), default="16,90", help="radii of the filter, pixels [16,90]")
    parser.add_argument("--one", nargs=2, metavar=("MEGAPIXELS", "RADIUS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(float(arguments.one[0]), int(arguments.one[1]))))
        return
    rows = []
    for radius in arguments.radius:
        for size in arguments.megapixels:
            done = subprocess.run([sys.executable, __file__, "--one", str(size), str(radius)], stdout=subprocess.PIPE, check=True)
            rows.append({"megapixels": size, "radius": radius, **json.loads(done.stdout)})
    cells = [
        (f"{r['megapixels']:g}", r["radius"], f"{r['bytes'] / 1e6:.0f}", f"{r['bytes'] / r['pixels']:.1f}", f"{r['cpu_s']:.1f}")
        for r in rows
    ]
    about = machine("torch", "numpy", "numba", "pillow", "pycocotools", threads=1)
    columns = ("megapixels", "radius", "MB", "bytes a pixel", "CPU s")
    show("the guided filter's memory beside image and mask", columns, cells, about, left=(), width=140)
    write_json(arguments.json, {"bench": "guided_memory", "machine": about, "cases": rows})


if __name__ == "__main__":
    main()
