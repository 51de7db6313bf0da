"""The speed of ``ovs-eval --metric miou``: label maps of VOC's number and size, against maps and against masks.

Wall seconds of the whole command on one thread, start-up included; the target is 30 s for 1,449 maps. Maps are made of overlapping
ellipses, and are PNG files as VOC's. What reading them alone takes is the floor.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from harness.arguments import bench_parser
from harness.commands import run
from harness.machine import processor
from harness.measure import timed

from ovskit.core.formats.labels.maps import open_label_folder
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet


def scene(seed: int, width: int, height: int, classes: int) -> np.ndarray:
    """(height, width) uint8: background, a few ellipses of classes, and a void rim between."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    for _ in range(8):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(20, width // 4)), int(rng.integers(20, height // 4)))
        angle = float(rng.integers(180))
        cv2.ellipse(labels, centre, axes, angle, 0, 360, int(rng.integers(1, classes)), -1)
        cv2.ellipse(labels, centre, axes, angle, 0, 360, 255, 3)
    return labels


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--images", type=int, default=1449, help="number of label maps [1449]")
    parser.add_argument("--width", type=int, default=500, help="width of a map, pixels [500]")
    parser.add_argument("--height", type=int, default=375, help="height of a map, pixels [375]")
    parser.add_argument("--classes", type=int, default=21, help="number of classes [21]")
    arguments = parser.parse_args()
    size = (arguments.width, arguments.height)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("truth", "predicted"):
            (folder / name).mkdir()
        names = [{"id": k, "name": str(k)} for k in range(arguments.classes)]
        with (folder / "masks.json").open("wb") as file:
            writer = MasksWriter(file, MasksHeader(categories=names))
            for k in range(arguments.images):
                truth, predicted = scene(k, *size, arguments.classes), scene(k + 10**6, *size, arguments.classes)
                cv2.imwrite(str(folder / "truth" / f"{k:06d}.png"), truth)
                cv2.imwrite(str(folder / "predicted" / f"{k:06d}.png"), predicted)
                masks = []
                for category in np.unique(predicted[predicted < 255]).tolist():
                    where = predicted == category
                    masks.append(Mask(len(masks) + 1, k + 1, rle.encode(where), int(where.sum()), (0, 0, 0, 0), category))
                writer.write(MaskSet(Image(k + 1, f"{k:06d}.jpg", *size), tuple(masks)))
            writer.finish()
        classes = ",".join(map(str, range(arguments.classes)))
        begin = ("ovs-eval", "--metric", "miou", "-j", 1, "-q", "--names", classes, "--gt", folder / "truth")

        def seconds(*words: object) -> float:
            return timed(lambda: run(*begin, *words), 1).least

        def read() -> None:
            maps = open_label_folder(str(folder / "truth"))
            for k in range(len(maps)):
                maps.load(k)

        seconds(folder / "predicted")  # kernels compile once
        print(f"{processor()}, {arguments.images} maps of {size[0]} x {size[1]}, one thread, seconds")
        print(f"reading the ground truth alone  {timed(read, 1).least:6.1f}")
        print(f"maps against maps               {seconds(folder / 'predicted'):6.1f}")
        print(f"masks against maps              {seconds(folder / 'masks.json'):6.1f}")
        print(f"masks, matched, 100 resamples   {seconds('--match', 'hungarian', '--bootstrap', 100, folder / 'masks.json'):6.1f}")


if __name__ == "__main__":
    main()
