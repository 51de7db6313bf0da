"""What each part of the built-in extractor is worth, how fast it is, and whether its global vector sorts photographs.

Every variant describes the same photographs; masks are made at the same 24 region counts, without the local step and without
refinement, and scored as in bench/quality.py: class-agnostic AR and AP at 1,000 masks a photograph, differences paired to the
extractor as it is shipped, 95 % intervals by bootstrap over photographs. ``--network`` adds other weights in the shipped
composition, ``--vit`` the keys of a vision transformer of timm (at 512 pixels a side), alone and in the place of the
network's embedding. ``--purity``: k-means with 101 clusters over the vectors of the pool's Caltech-101 photographs, which the network
was trained on without their labels, against colour histograms; the share of photographs that are of their cluster's most
frequent class. ``--speed``: seconds for a 512 × 512 image on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from harness.arguments import bench_parser
from harness.machine import surroundings
from harness.measure import timed
from harness.photographs import SETS, SIZE, described, pixels_of, pool, recall_of, truth_of
from harness.report import made_by, percent, progress, publish, section, with_interval
from scipy.cluster.vq import kmeans2

from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.eval.evaluation import evaluate
from ovskit.core.formats.photographs.decoding import decode_image
from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.models import builtin
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.builtin.extractor import COUNTS, WEIGHTS, BuiltinBackbone, Composition, load_builtin
from ovskit.core.models.builtin.global_vector import SIDE, WIDTH, GlobalVector, describe, fit_axes, oriented_gradients
from ovskit.core.models.builtin.network import MEAN, STD, Grouping, GroupingNetwork, normalise
from ovskit.core.models.builtin.weights import NetworkFile, load_network
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import Image, MaskSet, UInt8
from ovskit.core.runtime.workers import ordered_map

CPU = torch.device("cpu")

VARIANTS = {
    "as shipped": Composition(),
    "hand-made, no diffusion": Composition(learned=0, steps=0),
    "hand-made, diffused by itself": Composition(learned=0, boundary=0),
    "hand-made, diffused by learned boundaries alone": Composition(learned=0, contrast=0, boundary=8),
    "hand-made, diffused by both": Composition(learned=0),
    "both, no diffusion": Composition(steps=0),
    "both, diffused by themselves": Composition(boundary=0),
    "both, diffused by learned boundaries alone": Composition(contrast=0, boundary=8),
    "learned alone, no diffusion": Composition(handmade=0, steps=0),
    "learned alone": Composition(handmade=0),
    "learned at 0.4": Composition(learned=0.4),
    "learned at 1": Composition(learned=1.0),
    "20 steps": Composition(steps=20),
    "80 steps": Composition(steps=80),
    "contrast 4": Composition(contrast=4),
    "contrast 16": Composition(contrast=16),
    "boundary 2": Composition(boundary=2),
    "boundary 8": Composition(boundary=8),
    "network at 1/2 and 1/4": Composition(scales=(2, 4), embedded=16),
    "network at 1/2 and 1/4, 20 steps": Composition(scales=(2, 4), embedded=16, steps=20),
    "network at 1/4 only": Composition(scales=(4,)),
    "no whitening": Composition(whiten=False),
}


def load_shipped() -> NetworkFile:
    with resources.as_file(resources.files(builtin) / WEIGHTS) as path:
        return load_network(path)


def extractors(networks: dict[str, Path], vits: dict[str, tuple[str, Path]], pooled: bool) -> dict[str, Any]:
    """Every variant by name; "handmade-v1" is that model itself, "untrained" the shipped composition of a random network."""
    shipped = load_shipped().network.config
    found: dict[str, Any] = {name: load_builtin("builtin", device=CPU, composition=how) for name, how in VARIANTS.items()}
    found["handmade-v1"] = load_backbone("handmade", device=CPU)
    torch.manual_seed(0)
    random = GroupingNetwork(shipped)
    random.train()
    with torch.no_grad():
        random(torch.randn(8, 3, 128, 128))  # statistics of normalisation
    found["untrained network"] = BuiltinBackbone("builtin", random, "", CPU)
    if pooled:
        own = WhitenedOverPool(load_shipped().network)
        found["embedding whitened over the pool"] = BuiltinBackbone("builtin", own, "", CPU)  # type: ignore[arg-type]
        found["embedding whitened over the pool, not per image"] = BuiltinBackbone("builtin", own, "", CPU, Composition(whiten=False))  # type: ignore[arg-type]
    for name, path in networks.items():
        network, vector, sha256 = load_network(path)
        found[name] = BuiltinBackbone("builtin", network, sha256, CPU, vector=vector)
    for name, (model, path) in vits.items():
        vit = load_backbone(model, facet="key", weights=path, device=CPU)
        found[f"{name}, keys alone"] = Smaller(vit)
        found[f"{name}, hand-made and keys"] = BuiltinBackbone("builtin", KeysAsNetwork(vit), "", CPU)  # type: ignore[arg-type]
    return found


class Smaller:
    """A vision transformer that looks at 512 pixels a side, whatever it is asked for: more would take it minutes an image."""

    def __init__(self, vit: Any) -> None:
        self.vit, self.spec = vit, vit.spec

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        return self.vit.prepare(image, SIZE // 2, SIZE // 2)

    def extract(self, batch: torch.Tensor, **what: bool) -> Any:
        return self.vit.extract(batch, **what)


class WhitenedOverPool(torch.nn.Module):
    """The network with its embedding centred and half-whitened by axes of the pool instead of each image's own."""

    def __init__(self, network: GroupingNetwork, photographs: int = 200, places: int = 256) -> None:
        super().__init__()
        self.network = network
        rows = []
        torch.manual_seed(0)
        for pixels in pool_photographs(photographs):
            small = normalise(resize_rgb(pixels, SIZE // 2, SIZE // 2, "bilinear")[None])
            with torch.no_grad():
                embedding = network(small).embedding[0].flatten(1).mT
            rows.append(embedding[torch.randperm(len(embedding))[:places]])
        self.axes = fit_axes(torch.cat(rows), network.config.embedding)

    def forward(self, images: torch.Tensor) -> Grouping:
        seen = self.network(images)
        rows = self.axes.project(seen.embedding.permute(0, 2, 3, 1).flatten(0, 2))
        shape = (len(images), *seen.embedding.shape[2:], -1)
        return Grouping(rows.view(shape).permute(0, 3, 1, 2), seen.right, seen.below, seen.pooled)


class KeysAsNetwork(torch.nn.Module):
    """A transformer's keys in the place of the network's embedding, with no boundary anywhere."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: torch.Tensor) -> Grouping:
        pixels = images * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
        keys = self.vit.extract((pixels * 255).round().clamp(0, 255).byte()).patch.permute(0, 3, 1, 2)
        none = torch.full_like(keys[:, :1], -30.0)
        return Grouping(keys, none, none, keys.mean(dim=(2, 3)))


def grouping(arguments: argparse.Namespace, chosen: dict[str, Any]) -> list[str]:
    """The tables of variants, one for each set."""
    lines = []
    options = SohesOptions(counts=COUNTS)
    for name in arguments.sets:
        truth = truth_of(name, arguments.limit, arguments.skip)
        found: dict[str, list[MaskSet]] = defaultdict(list)

        def work(image: Image, name: str = name) -> dict[str, MaskSet]:
            pixels = pixels_of(image, name)
            features = {variant: described(backbone, image, pixels) for variant, backbone in chosen.items()}
            return {variant: cluster_regions(own, options, frame=(SIZE, SIZE), crop_features=None) for variant, own in features.items()}

        for done in ordered_map(work, truth.images, arguments.jobs):
            for variant, masks in done.items():
                found[variant].append(masks)
        scored = {variant: evaluate(masks, truth, recall_of(name)) for variant, masks in found.items()}
        base, rows = scored["as shipped"], []
        for variant, own in scored.items():
            m, spans = own.metrics(), own.intervals(1000)
            gain = own.difference(base, 1000)["AR@1000"]
            shown = "" if variant == "as shipped" else with_interval(gain.value, gain.interval, "+.1f")
            recall = with_interval(m["AR@1000"], spans["AR@1000"])
            rows.append((variant, f"{own.predicted_masks / len(truth):.0f}", recall, percent(m["AR@10"]), percent(m["AP"]), shown))
            progress(name, *rows[-1])
        columns = ("variant", "masks", "AR@1000", "AR@10", "AP", "difference in AR@1000")
        lines += section(f"{name}, {len(truth)} photographs", columns, rows)
    return lines


def pool_photographs(count: int) -> Iterator[UInt8]:
    """``count`` photographs, evenly from the pool."""
    sources = list_sources([str(path) for path in pool()]).items
    for source in sources[:: len(sources) // count][:count]:
        yield decode_image(source.read(), source.file_name)


def caltech() -> tuple[list[UInt8], np.ndarray]:
    """The pool's photographs that have one of Caltech-101's classes."""
    pictures, classes = [], []
    for path in pool():
        with tarfile.open(path) as tar:
            members = {member.name: member for member in tar}
            for name in sorted(members):
                if not name.endswith(".json"):
                    continue
                about = json.loads(tar.extractfile(members[name]).read())  # type: ignore[union-attr]
                if about["source"] == "caltech101":
                    data = tar.extractfile(members[name.replace(".json", ".jpg")]).read()  # type: ignore[union-attr]
                    pictures.append(decode_image(data, name))
                    classes.append(about["class"])
    return pictures, np.unique(np.array(classes), return_inverse=True)[1]


def colour_histogram(pixels: UInt8) -> np.ndarray:
    """512 bins of RGB, square roots of shares."""
    bins = (pixels.reshape(-1, 3) >> 5).astype(np.int64) @ np.array([64, 8, 1])
    return np.sqrt(np.bincount(bins, minlength=512) / len(bins))


def purity(vectors: np.ndarray, classes: np.ndarray, clusters: int, seed: int) -> float:
    """The share of photographs in the most frequent class of their cluster; k-means++ on unit vectors."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    found = kmeans2(unit.astype(np.float64), clusters, iter=50, minit="++", rng=seed, missing="warn")[1]
    counts = np.zeros((clusters, classes.max() + 1), np.int64)
    np.add.at(counts, (found, classes), 1)
    return float(counts.max(axis=1).sum() / len(classes))


def purities(chosen: dict[str, Any]) -> list[str]:
    pictures, classes = caltech()
    number = int(classes.max()) + 1
    small = torch.stack([resize_rgb(p, SIDE, SIDE, "bilinear") for p in pictures])
    untrained = chosen["untrained network"]
    with torch.no_grad():
        rows = [describe(untrained._network, piece, CPU) for piece in small.split(64)]
    untrained._vector = GlobalVector(*(fit_axes(torch.cat(one)) for one in zip(*rows, strict=True)))

    def vectors(backbone: Any) -> np.ndarray:
        found = [backbone.extract(backbone.prepare(p, SIZE // 2, SIZE // 2)[None], cls=True, patch=False).cls[0].numpy() for p in pictures]
        return np.stack(found)

    shipped = vectors(chosen["as shipped"])
    makers: dict[str, Callable[[], np.ndarray]] = {
        "colour histogram": lambda: np.stack([colour_histogram(p) for p in pictures]),
        "oriented gradients in 4 × 4 fields, as they are": lambda: torch.cat([oriented_gradients(p) for p in small.split(64)]).numpy(),
        "--cls, the half of the gradients alone": lambda: shipped[:, -WIDTH:],
        "--cls, the network's half alone": lambda: shipped[:, :-WIDTH],
        "--cls": lambda: shipped,
        "--cls, untrained network": lambda: vectors(untrained),
        "--cls, untrained network's half alone": lambda: vectors(untrained)[:, :-WIDTH],
    }
    for name, backbone in chosen.items():
        if name not in VARIANTS and getattr(backbone, "_vector", backbone) is not None and backbone.spec.has_cls:
            makers[f"--cls, {name}"] = lambda b=backbone: vectors(b)  # type: ignore[misc]
    share = float(np.bincount(classes).max() / len(classes))
    rows = [("none: all in one cluster", percent(share))]
    for name, make in makers.items():
        made = make()
        rows.append((name, percent(float(np.mean([purity(made, classes, number, seed) for seed in range(3)])))))
        progress(*rows[-1])
    title = f"Purity of k-means, {len(pictures)} photographs, {number} clusters"
    return section(title, ("vectors", "purity, mean of 3 seeds"), rows)


def speed(chosen: dict[str, Any]) -> list[str]:
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    rows = []
    for name in ("as shipped", "handmade-v1"):
        batches = [chosen[name].prepare(image, side, side)[None] for side in (512, 1024)]
        rows.append((name, *(f"{timed(lambda b=batch, n=name: chosen[n].extract(b), 5, warm=1).least:.2f}" for batch in batches)))
    return section("Speed", ("extractor", "s an image of 512 × 512, one thread", "of 1024 × 1024"), rows)


def main() -> None:
    parser = bench_parser(__doc__, limit=100, skip=True, sets=SETS, jobs=True, markdown=True)
    parser.add_argument("--only", default="", help="variants whose name holds one of these texts, and the shipped one")
    parser.add_argument("--network", action="append", default=[], metavar="NAME=WEIGHTS", help="other weights; several times")
    parser.add_argument("--vit", action="append", default=[], metavar="NAME=MODEL,WEIGHTS", help="a vision transformer; several times")
    parser.add_argument("--purity", action="store_true", help="also whether the global vector sorts photographs")
    parser.add_argument("--speed", action="store_true", help="also seconds for an image")
    parser.add_argument("--no-grouping", action="store_true", help="leave the masks out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = dict(text.split("=", 1) for text in arguments.network)
    vits = {name: value.split(",", 1) for name, value in (text.split("=", 1) for text in arguments.vit)}
    pooled = not arguments.only or "pool" in arguments.only
    every = extractors(
        {name: Path(path) for name, path in named.items()}, {k: (model, Path(path)) for k, (model, path) in vits.items()}, pooled
    )
    wanted = [text for text in arguments.only.split(",") if text]
    chosen = {
        k: v
        for k, v in every.items()
        if not wanted or k == "as shipped" or k in named or k.rpartition(",")[0] in vits or any(text in k for text in wanted)
    }
    about, weights = surroundings(), every["as shipped"].spec.weights_sha256
    lines = [
        "# Parts of the built-in extractor",
        "",
        f"{made_by(about)} ({about['machine']['cpus']} cores); weights sha256 {weights[:12]}….",
    ]
    if not arguments.no_grouping:
        lines += grouping(arguments, chosen)
    if arguments.purity:
        lines += purities(every)
    if arguments.speed:
        lines += speed(every)
    publish(lines, arguments.markdown)


if __name__ == "__main__":
    main()
