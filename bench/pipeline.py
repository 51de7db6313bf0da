"""``ovs-extract IMAGES | ovs-cluster`` as a user runs it: wall time, CPU time and peak memory of each stage.

Peak memory is the kernel's own high-water mark of each process (rusage of wait4).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import DATA
from harness.arguments import bench_parser
from harness.commands import BIN
from harness.measure import spent
from harness.report import show, write_json


def main() -> None:
    parser = bench_parser(__doc__, json=True)
    parser.add_argument("images", type=Path, nargs="?", default=DATA / "coco_entities" / "images", help="folder of photographs")
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the masks here")
    parser.add_argument("--extract", default="", help="options of ovs-extract, one string")
    parser.add_argument("--cluster", default="", help="options of ovs-cluster, one string")
    arguments = parser.parse_args()

    if not arguments.images.is_dir():
        sys.exit(f"no folder {arguments.images}: name one, or set OVSKIT_TEST_DATA")
    suffixes = {".jpg", ".jpeg", ".png"}
    paths = sorted(p for p in arguments.images.rglob("*") if p.suffix.lower() in suffixes)[: arguments.limit]
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.keep or Path(folder) / "masks.json"
        begun = time.perf_counter()
        extract = subprocess.Popen(
            [BIN / "ovs-extract", "--root", arguments.images, *arguments.extract.split(), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        cluster = subprocess.Popen([BIN / "ovs-cluster", *arguments.cluster.split(), "-o", out], stdin=extract.stdout)
        assert extract.stdin is not None
        assert extract.stdout is not None
        extract.stdout.close()
        extract.stdin.write(b"\n".join(os.fsencode(p) for p in paths))
        extract.stdin.close()
        stages = {"ovs-extract": spent(extract), "ovs-cluster": spent(cluster)}
        wall = time.perf_counter() - begun
        document = json.loads(out.read_bytes())
        size = out.stat().st_size

    masks = len(document["annotations"])
    result = {
        "images": len(paths), "masks": masks, "masks_per_image": masks / max(1, len(paths)), "bytes": size,
        "wall_s": wall, "s_per_image": wall / max(1, len(paths)), "stages": stages,
        "local": sum(a["source"] == "local" for a in document["annotations"]),
        "machine": platform.platform(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
    }  # fmt: skip
    per_image = f"{result['masks_per_image']:.0f} masks and {result['s_per_image']:.2f} s an image"
    title = f"{len(paths)} images, {masks} masks, {wall:.1f} s: {per_image}"
    rows = [(name, stage["exit"], f"{stage['cpu_s']:.1f}", f"{stage['peak_mib']:.0f}") for name, stage in stages.items()]
    show(title, ("stage", "exit", "CPU s", "peak MiB"), rows)
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
