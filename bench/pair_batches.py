"""Batches of image-text pairs: how many pairs a second one core makes, and where the time goes.

Photographs of smooth noise, of ``--width`` × 3/4, as JPEG in tars with five captions each; the files are in the cache. ``whole`` is
a batch as ``ovs-train pairs`` makes it, the other rows its parts one at a time: drawing, reading, the header, decoding at full size and no
finer than the crop is wanted (a JPEG's decoder can leave out what a half, a quarter or an eighth of the size does not need), cropping and
resizing, tokens. Times are CPU times of one thread, the least of several repetitions, a pair.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser
from harness.machine import host
from harness.measure import timed
from harness.report import show, write_json
from PIL import Image

from ovskit.core.formats.pairs.options import PairInputs
from ovskit.core.formats.photographs.decoding import decode_photograph, size_and_orientation
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.network import tokenizer_of
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.pair_draws import PairDraws
from ovskit.core.train.views.pair_samples import PairSamples, PairViewOptions, random_crop

WORDS = "a the dog man woman red green running standing grass water on with of in two people shirt snow ball".split()


def make_tar(path: Path, count: int, width: int) -> None:
    """``count`` pairs."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for k in range(count):
            noise = rng.integers(0, 256, (width * 3 // 4 // 8, width // 8, 3)).astype(np.uint8)
            image = io.BytesIO()
            Image.fromarray(noise).resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(image, "JPEG", quality=85)
            captions = [" ".join(rng.choice(WORDS, 11)) for _ in range(5)]
            for suffix, data in ((".jpg", image.getvalue()), (".json", json.dumps({"captions": captions}).encode())):
                member = tarfile.TarInfo(f"{k:06d}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def measured(folder: Path, arguments: argparse.Namespace, width: int) -> dict[str, float]:
    """Milliseconds a pair."""
    side, count, repeat = arguments.side, arguments.batch, arguments.repeat
    make_tar(folder / f"{width}.tar", count, width)
    draws = PairDraws(PairInputs((str(folder / f"{width}.tar"),)), seed=0, failures=Failures(skip=False), index_folder=str(folder))
    tokenizer = tokenizer_of(TowersConfig("none"))
    samples = PairSamples(draws, PairViewOptions(side, 0.4, 0.5, False), tokenizer, Failures(skip=False))
    drawn = [each.pair for each in draws.batch(0, 0, 1, count)]
    files = [pair.image.read() for pair in drawn]
    crops = [random_crop(width, width * 3 // 4, np.random.default_rng(k), 0.4) for k in range(count)]
    least = [(int(width * side / (r - x)) + 1, int(width * 3 / 4 * side / (b - y)) + 1) for x, y, r, b in crops]
    smaller = [decode_photograph(data, "", at_least=size).pixels for data, size in zip(files, least, strict=True)]

    def resized() -> None:
        for pixels, box in zip(smaller, crops, strict=True):
            scale = pixels.shape[1] / width
            Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=tuple(edge * scale for edge in box))

    parts = {
        "whole": lambda: samples.batch(0, 0, 1, count),
        "draw, with captions": lambda: draws.batch(0, 0, 1, count),
        "read": lambda: [pair.image.read() for pair in drawn],
        "header": lambda: [size_and_orientation(data, "") for data in files],
        "decode, full size": lambda: [decode_photograph(data, "") for data in files],
        "decode, as fine as wanted": lambda: [decode_photograph(data, "", at_least=size) for data, size in zip(files, least, strict=True)],
        "crop and resize": resized,
        "tokens": lambda: tokenizer([pair.captions[0] for pair in drawn]),
    }
    return {name: 1000 * timed(part, repeat, clock=time.thread_time).least / count for name, part in parts.items()}


def main() -> None:
    parser = bench_parser(__doc__, repeat=3, json=True)
    parser.add_argument("--batch", type=int, default=128, help="pairs [128]")
    parser.add_argument("--side", type=int, default=224, help="side of the crops in pixels [224]")
    parser.add_argument("--width", type=int, action="append", help="width of the photographs, several times for several [256, 640, 1600]")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for width in arguments.width or (256, 640, 1600):
            found[width] = measured(Path(scratch), arguments, width)
    rows = [(name, *(f"{each[name]:.3f}" for each in found.values())) for name in next(iter(found.values()))]
    rows.append(("pairs a second", *(f"{1000 / each['whole']:.0f}" for each in found.values())))
    title = f"Milliseconds a pair, crops of {arguments.side} pixels"
    show(title, ["part", *(f"{width} px" for width in found)], rows, host("pillow", "torch", "open_clip_torch"))
    if arguments.json:
        write_json(arguments.json, {"machine": host("pillow"), "milliseconds": found})


if __name__ == "__main__":
    main()
