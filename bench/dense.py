"""Names on pixels by each method of ovs-predict, on photographs that annotators outlined; and what the methods cost.

``scores``: mIoU of the pool's 110 classes on composites of four photographs that were not trained on, which is what a small tower knows;
of PASCAL VOC's classes, without background as in "VOC-20" (the 50 photographs that were not chosen by class apart from the 150 that lean
to animals), and of CamVid's 11, by one model that knows words, in the same run and on the same photographs. What masks add is seen by
giving the same tower's patches our masks (``ovs-extract | ovs-cluster | ovs-refine``: hundreds, the smallest on top), a partition into 16
regions of the same features (``ovs-cluster --counts 16``), square tiles and superpixels: by the correction of the map alone, by merging
alone, by both; beside it ``ovs-label --names``, which names crops of the 16 regions. Chance is the best class everywhere, which an oracle
would choose. Intervals by bootstrap over photographs; differences are paired with the first row. ``--extra LABEL=FLAGS`` adds a row.

``speed``: milliseconds a window of 336 × 336 pixels, of networks with random weights (ViT-B/16, proxy ViT-B/8), beyond the tower's own
forward pass; what a GPU keeps; seconds to put windows together and decide, by the number of classes.

Towers that were trained on thousands of photographs are weak: what the rows say of each other is what there is to see, and the numbers may
not be set beside the papers'.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from gpu.lines import Lines, read_lines
from gpu.naming import naming
from gpu.work import Work
from harness import DATA
from harness.arguments import bench_parser, list_of
from harness.commands import pipe
from harness.machine import surroundings
from harness.report import made_by, percent, progress, publish, section
from PIL import Image as Picture
from two_towers_pack import held_out

from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.formats.labels.spaces import open_label_space
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet

PARTS = ("scores", "speed")
SETS = ("composites", "voc2012/all20", "voc2012/animals", "camvid")
SIDE = 224  # of a composite
KINDS = ("ours", "our 16 regions", "64 squares", "64 superpixels")
RESAMPLES = 2000
Counts = np.ndarray  # (photographs, classes, classes + 1): pixels by true class and predicted class, the last being none


def photographs_of(name: str, limit: int, folder: Path) -> tuple[list[Path], Path, str]:
    """Photographs, a folder of label maps with the ids of the label space, void 255, and the label space."""
    maps = folder / f"maps-{name.replace('/', '-')}"
    maps.mkdir(exist_ok=True)
    if name == "composites":
        return composites(limit, folder, maps)
    if name == "camvid":
        images = sorted((DATA / "camvid" / "images").iterdir())
        images = images[:: max(1, len(images) // limit)][:limit]  # of the whole drive, not its beginning
        for image in images:
            labels = np.array(Picture.open(DATA / "camvid" / "labels" / f"{image.stem}.png"))
            Picture.fromarray(np.where(labels >= 11, 255, labels).astype(np.uint8)).save(maps / f"{image.stem}.png")
        return images, maps, "camvid-11"
    root, split = DATA / "voc2012", name.partition("/")[2]
    stems = (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()[:limit]
    for stem in stems:
        labels = np.array(Picture.open(root / "SegmentationClass" / f"{stem}.png"))
        # Background does not count: ids from 0 are those of voc-20.
        Picture.fromarray(np.where((labels == 0) | (labels == 255), 255, labels - 1).astype(np.uint8)).save(maps / f"{stem}.png")
    return [root / "JPEGImages" / f"{stem}.jpg" for stem in stems], maps, "voc-20"


def composites(limit: int, folder: Path, maps: Path) -> tuple[list[Path], Path, str]:
    """Squares of four photographs of the pool that were held out, cut at a random place each way; all classes of them are names."""
    photographs = list(held_out())
    names = sorted({word for word, _ in photographs})
    (folder / "pool.txt").write_text("\n".join(names) + "\n")
    (folder / "composites").mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    images = []
    for k in range(limit):
        picture, labels = Picture.new("RGB", (SIDE, SIDE)), np.zeros((SIDE, SIDE), np.uint8)
        x, y = (int(random.uniform(0.35, 0.65) * SIDE) for _ in range(2))
        boxes = ((0, 0, x, y), (x, 0, SIDE, y), (0, y, x, SIDE), (x, y, SIDE, SIDE))
        for box, chosen in zip(boxes, random.choice(len(photographs), 4, replace=False), strict=True):
            word, photograph = photographs[chosen]
            left, top, right, bottom = box
            picture.paste(photograph.resize((right - left, bottom - top), Picture.Resampling.BICUBIC), box)
            labels[top:bottom, left:right] = names.index(word)
        images.append(folder / "composites" / f"{k:03d}.png")
        picture.save(images[-1])
        Picture.fromarray(labels).save(maps / f"{k:03d}.png")
    return images, maps, str(folder / "pool.txt")


def count(named: Path, maps: Path, classes: int) -> Counts:
    """The confusion of each photograph, in the order of the names."""
    found = {}
    with named.open("rb") as stream:
        for masks in open_masks(stream, named.name)[1]:
            stem = Path(masks.image.file_name).stem
            truth = np.array(Picture.open(maps / f"{stem}.png")).astype(np.int64)
            predicted = painted_prediction(masks).labels
            inside = truth != 255
            ours = np.where(predicted < 0, classes, predicted)[inside]
            found[stem] = np.bincount(truth[inside] * (classes + 1) + ours, minlength=classes * (classes + 1)).reshape(classes, classes + 1)
    return np.stack([found[stem] for stem in sorted(found)])


def miou(counts: Counts) -> float:
    """Mean over the classes that the ground truth has."""
    hits = counts[:, :-1].diagonal()
    union = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) - hits
    there = counts.sum(axis=1) > 0
    return float((hits[there] / union[there]).mean())


def resampled(counts: Counts) -> np.ndarray:
    """mIoU of resamples of the photographs, the same ones for every prediction of them."""
    random = np.random.default_rng(0)
    draws = random.integers(0, len(counts), (RESAMPLES, len(counts)))
    return np.array([miou(counts[draw].sum(axis=0)) for draw in draws])


def best_class_everywhere(counts: Counts) -> Counts:
    """What naming every pixel alike gives, by the class that is best for it."""
    truth = counts.sum(axis=2)
    options = []
    for k in range(counts.shape[1]):
        same = np.zeros_like(counts)
        same[:, :, k] = truth
        options.append(same)
    return max(options, key=lambda one: miou(one.sum(axis=0)))


def tiles(images: Sequence[Path], path: Path, regions: Callable[[np.ndarray], np.ndarray]) -> None:
    """A masks stream of what ``regions`` makes of each photograph: a map (H, W) of numbers from 0."""
    with path.open("wb") as file:
        writer = MasksWriter(file, MasksHeader("tiles"))
        for number, image in enumerate(images, 1):
            pixels = np.array(Picture.open(image).convert("RGB"))
            labels = regions(pixels)
            record = Image(number, image.name, pixels.shape[1], pixels.shape[0])
            outlines = [rle.encode(labels == k) for k in range(int(labels.max()) + 1)]
            masks = tuple(Mask(k + 1, number, one, rle.area(one), rle.bbox(one)) for k, one in enumerate(outlines) if rle.area(one))
            writer.write(MaskSet(record, masks))
        writer.finish()


def squares(pixels: np.ndarray) -> np.ndarray:
    """8 × 8 tiles, about as many as superpixels."""
    height, width = pixels.shape[:2]
    return (np.arange(height)[:, None] * 8 // height) * 8 + np.arange(width) * 8 // width


def superpixels(pixels: np.ndarray) -> np.ndarray:
    """SLIC's, about 64."""
    from skimage.segmentation import slic

    found: np.ndarray = slic(pixels, n_segments=64, compactness=10, start_label=0)
    return found


def rows_of(arguments: argparse.Namespace, folder: Path, name: str) -> list[tuple[str, str]]:
    """The rows of a set: label and flags of ovs-predict; masks are made before."""
    proxy = f"--proxy {arguments.proxy}" + (f" --proxy-weights {arguments.proxy_weights}" if arguments.proxy_weights else "")
    masks = {kind: f"--masks {folder}/{name.replace('/', '-')}-{kind.replace(' ', '-')}.json" for kind in KINDS}
    rows = [("plain: its own patches", "--method plain")]
    if arguments.attention:
        rows += [(method, f"--method {method}") for method in ("clear", "sclip", "naclip")]
    rows += [("proxy", f"--method proxy {proxy}"), ("corr, no masks", f"--method corr {proxy}")]
    if arguments.without_masks:
        masks = {}
    for kind, flags in masks.items():
        rows.append((f"plain, map corrected by {kind}", f"--method plain {flags}"))
    for kind, flags in masks.items():
        rows.append((f"corr, merging by {kind} alone", f"--method corr {proxy} {flags} --no-correct"))
    for kind, flags in masks.items():
        rows.append((f"corr, {kind}: both", f"--method corr {proxy} {flags}"))
    return rows + [tuple(extra.split("=", 1)) for extra in arguments.extra]  # type: ignore[misc]


def make_masks(arguments: argparse.Namespace, folder: Path, name: str, images: Sequence[Path]) -> None:
    stem = name.replace("/", "-")
    listed = " ".join(shlex.quote(str(image)) for image in images)
    root = images[0].parent
    pipe(
        f"ovs-extract -q {listed} --root {root} | ovs-cluster -q -j {arguments.jobs} | ovs-refine -q -j {arguments.jobs} "
        f"-o {folder}/{stem}-ours.json"
    )
    pipe(f"ovs-extract -q {listed} --root {root} | ovs-cluster -q --counts 16 --no-local -o {folder}/{stem}-our-16-regions.json")
    tiles(images, folder / f"{stem}-64-squares.json", squares)
    tiles(images, folder / f"{stem}-64-superpixels.json", superpixels)


def scores(arguments: argparse.Namespace, folder: Path) -> list[str]:
    lines = []
    for name in arguments.sets:
        images, maps, space = photographs_of(name, arguments.limit, folder)
        classes = len(open_label_space(space).classes)
        make_masks(arguments, folder, name, images)
        listed = " ".join(shlex.quote(str(image)) for image in images)
        common = f"ovs-predict -q --model {arguments.model} --names {space} --short-side {arguments.short_side} --window {arguments.window}"
        common += f" --stride {arguments.stride} --root {images[0].parent} {listed}"
        found: list[tuple[str, Counts, float]] = []
        for label, flags in rows_of(arguments, folder, name):
            begun = time.monotonic()
            pipe(f"{common} {flags} -o {folder}/named.json")
            found.append((label, count(folder / "named.json", maps, classes), time.monotonic() - begun))
            progress(name, label, f"{100 * miou(found[-1][1].sum(axis=0)):.1f}", f"{found[-1][2]:.0f} s")
        begun = time.monotonic()
        pipe(
            f"ovs-label -q --model {arguments.model} --names {space} --score label {folder}/{name.replace('/', '-')}-our-16-regions.json "
            f"-o {folder}/named.json"
        )
        found.append(("crops of our 16 regions (ovs-label)", count(folder / "named.json", maps, classes), time.monotonic() - begun))
        found.append(("the best class everywhere (oracle)", best_class_everywhere(found[0][1]), 0.0))
        lines += scores_table(f"{name}: {len(images)} photographs, {Path(space).stem}", found)
        progress("\n".join(lines))
    return lines


def scores_table(title: str, found: Sequence[tuple[str, Counts, float]]) -> list[str]:
    first = resampled(found[0][1])
    cells = []
    for label, counts, seconds in found:
        drawn = resampled(counts)
        low, high = np.quantile(drawn, (0.025, 0.975))
        less, more = np.quantile(drawn - first, (0.025, 0.975))
        total = counts.sum(axis=0)
        difference = miou(total) - miou(found[0][1].sum(axis=0))
        accuracy = float(total[:, :-1].diagonal().sum() / total.sum())
        said = "" if counts is found[0][1] else f"{100 * difference:+.1f} [{100 * less:.1f}, {100 * more:.1f}]"
        cells.append((label, f"{percent(miou(total))} [{percent(low)}, {percent(high)}]", said, percent(accuracy), f"{seconds:.0f}"))
    return section(title, ("prediction", "mIoU [95 %]", "beyond the first row", "pixel accuracy", "s"), cells)


def speed(arguments: argparse.Namespace, folder: Path) -> list[str]:
    lines = Lines(folder / "lines.jsonl")
    naming(Work("speed", torch.device(arguments.device), arguments.dry, folder, lines))
    rows = [(one.what, name, value) for one in read_lines(folder / "lines.jsonl") for name, value in one.values.items()]
    return section("Speed", ("what", "", ""), rows)


def main() -> None:
    parser = bench_parser(__doc__, limit=150, jobs=True, markdown=True)
    parser.add_argument("--model", default="run:towers", help="a model that knows words [run:towers]")
    parser.add_argument("--attention", action="store_true", help="also the methods that take a ViT's last block apart")
    parser.add_argument("--proxy", default="builtin", help="the other network [builtin]")
    parser.add_argument("--proxy-weights", help="its weights")
    parser.add_argument("--short-side", type=int, default=224, help="shorter side as the network sees it [224]")
    parser.add_argument("--window", default="224", help="side of a window, or whole [224]")
    parser.add_argument("--stride", type=int, default=112, help="pixels from one window to the next [112]")
    parser.add_argument("--without-masks", action="store_true", help="only the rows that need none")
    parser.add_argument("--sets", type=list_of(str, SETS), default=",".join(SETS), help=f"photographs of [{','.join(SETS)}]")
    parser.add_argument("--extra", action="append", default=[], metavar="LABEL=FLAGS", help="another row")
    parser.add_argument("--only", type=list_of(str, PARTS), default="scores", help="parts [scores]")
    parser.add_argument("--device", default="cpu", help="of the speed part [cpu]")
    parser.add_argument("--dry", action="store_true", help="the speed part in miniature")
    arguments = parser.parse_args()
    if isinstance(arguments.sets, str):
        arguments.sets = arguments.sets.split(",")
    lines = ["# Names on pixels", "", f"{made_by(surroundings())}. Percent."]
    with tempfile.TemporaryDirectory() as temporary:
        for part in (scores, speed):
            if part.__name__ in arguments.only:
                lines += part(arguments, Path(temporary))
    publish(lines, arguments.markdown)


if __name__ == "__main__":
    main()
