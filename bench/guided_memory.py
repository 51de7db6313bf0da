"""How much memory the guided filter takes beside the photograph and its masks, whatever their size.

    python bench/guided_memory.py [--megapixels 1,4,16,100] [--radius 16,90] [--json FILE]

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
from descriptor import machine
from rich.console import Console
from rich.table import Table

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


def resident(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", default="1,4,16,100")
    parser.add_argument("--radius", default="16,90")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--one", nargs=2, metavar=("MEGAPIXELS", "RADIUS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(float(arguments.one[0]), int(arguments.one[1]))))
        return
    table = Table(title="the guided filter's memory beside image and mask")
    for column in ("megapixels", "radius", "MB", "bytes a pixel", "CPU s"):
        table.add_column(column, justify="right")
    rows = []
    for radius in arguments.radius.split(","):
        for size in arguments.megapixels.split(","):
            done = subprocess.run([sys.executable, __file__, "--one", size, radius], stdout=subprocess.PIPE, check=True)
            row = json.loads(done.stdout)
            rows.append({"megapixels": float(size), "radius": int(radius), **row})
            table.add_row(size, radius, f"{row['bytes'] / 1e6:.0f}", f"{row['bytes'] / row['pixels']:.1f}", f"{row['cpu_s']:.1f}")
    about = machine(1)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table)
    console.print(about)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"bench": "guided_memory", "machine": about, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
