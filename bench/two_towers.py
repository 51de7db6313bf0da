"""Two towers of our own, trained from scratch: what they know of photographs, of captions, and of regions.

``ovs-train pairs`` trains on photographs of 110 classes with "a photo of a {class}" as their caption and on photographs with five captions
(either or both: ``--sets``); a tenth of each class and 400 photographs with captions are held out. Then, with 95 % intervals by bootstrap:

- zero-shot: held-out photographs are given one of the 110 classes, by the same prompt;
- retrieval: the right caption among 2,000 for an image, the right image among 400 for a caption;
- regions: composites of 2 × 2 held-out photographs; each quarter is named by the mean of the dense tower's vectors over it, and, to
  compare, by the tower's vector of the quarter alone. Chance is one in 110.

``centred`` rows are text rows without their common mean. None of this says anything of models trained on millions of pairs. ``--pack``
writes what is needed into a folder (some 24 MB) and does nothing else; ``--data`` reads it, on a machine without the photographs. With
``--minutes`` the number of steps is found by a short run first. Captions are of a set for research: what is trained here is not to be
shipped.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness.arguments import bench_parser
from harness.commands import logged, run
from harness.machine import surroundings
from harness.report import made_by, progress, publish, section, with_interval, write_json
from PIL import Image
from two_towers_pack import pack, unpacked

TRIAL = 20  # of the run that finds out how fast it is
TEMPLATE = "a photo of a {}"


class Tested(NamedTuple):
    """Held-out photographs (n, S, S, 3) uint8, squashed to a square, and what their tar says of each."""

    pixels: np.ndarray
    about: list[dict[str, Any]]


def main() -> None:
    arguments = parse()
    if arguments.pack:
        print(f"{pack(arguments.pack, arguments.pack_side, arguments.quality) / 1e6:.1f} MB in {arguments.pack}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.data is None:
            progress("packing")
            pack(folder / "pack", arguments.pack_side, arguments.quality)
        data = unpacked(arguments.data or folder / "pack", folder / "tars")
        out = arguments.run or folder / "run"
        spent = train(arguments, data, out, folder / "trial")
        scores = scored(arguments, data, out)
    about = surroundings("timm", "open_clip_torch")
    about |= {"device": arguments.device, "arch": arguments.arch, "side": arguments.side, **spent}
    publish(report(about, scores), arguments.markdown)
    if arguments.json:
        write_json(arguments.json, {**about, "scores": scores})


def parse() -> argparse.Namespace:
    parser = bench_parser(__doc__, bootstrap=1000, markdown=True, json=True)
    add = parser.add_argument
    add("--pack", type=Path, metavar="FOLDER", help="write the photographs that are needed here, and stop")
    add("--pack-side", type=int, default=112, help="shorter side of the packed photographs [112]")
    add("--quality", type=int, default=30, help="WebP quality of the packed photographs [30]")
    add("--data", type=Path, metavar="FOLDER", help="a pack, instead of $OVSKIT_TEST_DATA")
    add("--run", type=Path, metavar="FOLDER", help="keep the run here; one that is finished is only scored")
    add("--sets", default="pool,pairs", help="what is trained on: pool, pairs or both [pool,pairs]")
    add("--minutes", type=float, default=5.0, help="minutes of training [5]")
    add("--steps", type=int, help="train for so many steps, whatever time they take")
    add("--device", default="cpu", help="cpu or cuda [cpu]")
    add("--arch", default="resnet10t", help="the image tower [resnet10t]")
    add("--side", type=int, default=96, help="side of the images in pixels [96]")
    add("--batch", type=int, default=128, help="pairs a step [128]")
    add("--lr", type=float, default=1e-3, help="learning rate [0.001]")
    add("--negatives", default="own", help="own or all [own]")
    add("--accumulate", type=int, default=1, help="batches a step [1]")
    add("--jobs", type=int, default=2, help="threads that make batches [2]")
    add("--composites", type=int, default=200, help="composites of four photographs [200]")
    add("--set", action="append", default=[], metavar="NAME=X", help="more settings of the recipe")
    return parser.parse_args()


# Training


def train(arguments: argparse.Namespace, data: Path, out: Path, trial: Path) -> dict[str, Any]:
    """Train for the time that is given; steps, pairs, seconds and processor seconds."""
    if (out / "model.safetensors").exists():
        progress(f"{out} is finished")
        return {"steps": logged(out)[-1]["step"], "seconds": logged(out)[-1]["seconds"]}
    tars = [data / f"{name}-train.tar" for name in arguments.sets.split(",")]
    words = [
        "ovs-train", "pairs", *tars, "-q", "--device", arguments.device, "--arch", arguments.arch, "--side", arguments.side,
        "--batch", arguments.batch, "--lr", arguments.lr, "--negatives", arguments.negatives, "--accumulate", arguments.accumulate,
        "-j", arguments.jobs, "--set", "text_layers=4", *(word for text in arguments.set for word in ("--set", text)),
    ]  # fmt: skip
    steps = arguments.steps
    if steps is None:
        run(*words, "-o", trial, "--steps", TRIAL, "--warmup", 5, "--log-every", TRIAL // 4)
        lines = logged(trial)
        a_step = (lines[-1]["seconds"] - lines[1]["seconds"]) / (lines[-1]["step"] - lines[1]["step"])
        steps = max(TRIAL, int(60 * arguments.minutes / a_step))
        progress(f"{a_step:.3f} s a step: {steps} steps")
    began, busy = time.perf_counter(), children()
    run(*words, "-o", out, "--steps", steps, "--warmup", max(1, min(500, steps // 10)), "--log-every", max(1, steps // 20))
    for line in logged(out):
        progress(f"step {line['step']}: {line['losses']}, {line['samples_per_second']} pairs/s, waiting {line['waiting']:.0%}")
    return {
        "steps": steps, "batch": arguments.batch * arguments.accumulate, "minutes": round((time.perf_counter() - began) / 60, 2),
        "processor minutes": round((children() - busy) / 60, 2), "pairs per second": logged(out)[-1]["samples_per_second"],
        "loss": logged(out)[-1]["losses"]["loss"], "accuracy in batch": logged(out)[-1]["losses"]["accuracy"],
    }  # fmt: skip


def children() -> float:
    """Processor seconds of all processes that were started and have ended."""
    times = os.times()
    return times.children_user + times.children_system


# Scores


def scored(arguments: argparse.Namespace, data: Path, out: Path) -> dict[str, list[float]]:
    """Every score with its interval."""
    import torch

    from ovskit.core.eval.retrieval import centred, image_to_text_hits, mean_with_interval, text_to_image_hits, topk_hits
    from ovskit.core.models.registry import load_backbone, load_text

    device = torch.device(arguments.device)
    backbone = load_backbone(f"run:{out}", device=device)
    text = load_text(backbone.spec, device=device)
    found: dict[str, list[float]] = {}

    def put(name: str, values: np.ndarray) -> None:
        found[name] = list(mean_with_interval(values, count=arguments.bootstrap))

    pool = tested(data / "pool-test.tar", arguments.side)
    classes = sorted({about["class"] for about in tested(data / "pool-train.tar", 8).about})
    truth = np.array([classes.index(about["class"]) for about in pool.about])
    plain = text.embed([TEMPLATE.format(word) for word in classes])
    rows = vectors(backbone, pool.pixels)
    for way, words in (("", plain), (", centred", centred(plain))):
        for k, column in zip((1, 5), topk_hits(rows, words, truth).T, strict=True):
            put(f"zero-shot top-{k}{way}", column)
    put("zero-shot, chance", np.full(len(rows), 1 / len(classes)))

    pairs = tested(data / "pairs-test.tar", arguments.side)
    captions = [caption for about in pairs.about for caption in about["captions"]]
    image_of = np.repeat(np.arange(len(pairs.about)), [len(about["captions"]) for about in pairs.about])
    seen, said = vectors(backbone, pairs.pixels), text.embed(captions)
    for name, hits in (("image to text", image_to_text_hits), ("text to image", text_to_image_hits)):
        for k, column in zip((1, 5, 10), hits(seen, said, image_of).T, strict=True):
            put(f"{name} R@{k}", column)

    quarters, dense, crops = regions(out, pool, device, backbone, arguments.composites)
    for way, words in (("", plain), (", centred", centred(plain))):
        put(f"regions by the dense tower{way}", topk_hits(dense, words, truth[quarters], (1,))[:, 0])
        put(f"regions by crops{way}", topk_hits(crops, words, truth[quarters], (1,))[:, 0])
    return found


def tested(path: Path, side: int) -> Tested:
    """The photographs of a tar, in its order."""
    pixels, about = [], []
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            if member.name.endswith(".json"):
                about.append(json.load(file))
            else:
                image = Image.open(io.BytesIO(file.read())).convert("RGB")
                pixels.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)))
    return Tested(np.stack(pixels), about)


def vectors(backbone: Any, pixels: np.ndarray, at_once: int = 64) -> np.ndarray:
    """The image vectors (n, c) float32."""
    return np.concatenate([backbone.extract(batch, cls=True, patch=False).cls.float().cpu().numpy() for batch in batches(pixels, at_once)])


def batches(pixels: np.ndarray, at_once: int) -> Iterator[Any]:
    import torch

    for start in range(0, len(pixels), at_once):
        yield torch.from_numpy(np.ascontiguousarray(pixels[start : start + at_once].transpose(0, 3, 1, 2)))


def regions(out: Path, pool: Tested, device: Any, backbone: Any, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places of the photographs in the quarters of composites, and the quarters' vectors (4·count, c): by the dense tower, and as
    photographs by themselves."""
    import torch

    from ovskit.core.models.family import BackboneRequest
    from ovskit.core.models.towers.dense import open_dense

    name = f"run:{out}"
    tower = open_dense(BackboneRequest(name, name, None, device, torch.float32, "key", -1, "official", None))
    random = np.random.default_rng(0)
    chosen = np.stack([random.choice(len(pool.pixels), 4, replace=False) for _ in range(count)])
    found = []
    for four in chosen:
        a, b, c, d = pool.pixels[four]
        composite = np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)], axis=0)
        x = tower.embed(next(batches(composite[None], 1)))
        for index in range(tower.depth):
            x = tower.block(index, x)
        said = tower.head(x)[0, tower.prefix :].float().cpu().numpy()
        half = len(composite) // tower.spec.stride // 2
        grid = said.reshape(2, half, 2, half, -1)
        found.append(grid.mean(axis=(1, 3)).reshape(4, -1))
    places = chosen.reshape(-1)
    return places, np.concatenate(found), vectors(backbone, pool.pixels)[places]


def report(about: dict[str, Any], scores: dict[str, Sequence[float]]) -> list[str]:
    """The tables."""
    run_of = [f"{name}: {value}" for name, value in about.items() if name not in ("command", "commit", "date", "machine", "versions")]
    rows = [(name, with_interval(mean, (low, high))) for name, (mean, low, high) in scores.items()]
    text = "; ".join(run_of)
    return ["# Two towers of our own", "", made_by(about), *section("Scores", ("score", "%"), rows, text)]


if __name__ == "__main__":
    sys.exit(main())
