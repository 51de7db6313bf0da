"""What LightCluster and k-means give as semantic segmentation, on photographs that annotators outlined.

``foreground``: the foreground of each of LightCluster's levels, and of all together, before and after ``ovs-refine``, against the union of
what was outlined: whole people in ccp_parts, things in coco_entities. IoU of foreground and background, intervals by bootstrap.
``classes``: CamVid's 11 classes by unsupervised clusters matched to them (Hungarian, on these photographs: a ceiling): k-means of all
patches; LightCluster's pieces, refined and gathered by ``ovs-label``. Mean and deviation over seeds.
``oracle``: S-Seg's ceiling: each of K clusters of an image takes the class that most of its pixels have; mIoU on CamVid and coco_entities
for K = 4, 8, 16, against the same clusters of plain colours.

All but the oracle is done by the commands. The photographs are few: compare within a table only.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from harness import DATA
from harness.arguments import bench_parser, list_of
from harness.commands import pipe, scores
from harness.machine import surroundings
from harness.photographs import first_images, truth_file
from harness.report import made_by, metric_text, percent, progress, publish, section

from ovskit.core.cluster.kmeans_masks import ShapeOptions, masks_of_labels
from ovskit.core.cluster.patch_sample import unit_rows
from ovskit.core.eval.confusion import count_pairs
from ovskit.core.eval.semantic import SemanticScores
from ovskit.core.eval.semantic_inputs import SemanticTruth, open_semantic_truth
from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.formats.photographs.photographs import load_photograph
from ovskit.core.formats.streams.features import open_features
from ovskit.core.models.kmeans import KMeansOptions, fit_each
from ovskit.core.records import FeatureMap

LEVELS = ("image", "category", "dataset", "final")
FOREGROUND = ("ccp_parts", "coco_entities")
PARTS = ("foreground", "classes", "oracle")


def extract(arguments: argparse.Namespace, images: str, features: Path) -> None:
    pipe(f"ovs-extract -q --cls --model {arguments.model} --size {arguments.size} {images} -o {features}")


def foreground_space(truth: Path, folder: Path) -> Path:
    """Two classes: what was outlined, things where a file tells them apart, and all else."""
    categories = json.loads(truth.read_text())["categories"]
    names = [str(c["name"]) for c in categories if c.get("isthing", 1)]
    classes = [{"id": 0, "name": "background"}, {"id": 1, "name": "entity", "synonyms": names}]
    path = folder / f"{truth.parent.name}-foreground.json"
    path.write_text(json.dumps({"format": "ovskit.labels/1", "name": "foreground", "version": 1, "background": 0, "classes": classes}))
    return path


def foreground_scores(truth: Path, files: Sequence[Path], folder: Path) -> dict[str, Any]:
    """``harness.commands.scores`` of the two classes."""
    return scores(truth, files, "--names", foreground_space(truth, folder), metric="miou")


def foreground_cells(one: dict[str, Any]) -> tuple[str, str]:
    """mIoU of both classes with its interval, and IoU of the foreground, of one file."""
    return metric_text(one, "mIoU"), percent(one["classes"][1]["iou"])


def foreground(arguments: argparse.Namespace, folder: Path) -> list[str]:
    lines = []
    for name in FOREGROUND:
        truth, features = truth_file(name), folder / f"{name}.npz"
        extract(arguments, first_images(truth, arguments.limit, folder), features)
        made = []
        for level in LEVELS:
            made.append(folder / f"{name}-{level}.json")
            pipe(f"ovs-cluster -q --method lightcluster --emit {level} -j {arguments.jobs} {features} -o {made[-1]}")
        made.append(folder / f"{name}-refined.json")
        pipe(f"ovs-refine -q -j {arguments.jobs} {made[-2]} -o {made[-1]}")
        found = foreground_scores(truth, made, folder)["files"]
        rows = [(label, *foreground_cells(one)) for label, one in zip([*LEVELS, "final, refined"], found, strict=True)]
        title = f"Foreground, {name}, {arguments.limit} photographs"
        lines += section(title, ("masks", "mIoU of both", "IoU of foreground"), rows)
    return lines


def classes(arguments: argparse.Namespace, folder: Path) -> list[str]:
    truth, photographs = DATA / "camvid", DATA / "camvid" / "images"
    features = folder / "camvid.npz"
    # Every so many frames of the drive, not its beginning.
    shard = max(1, len(list(photographs.iterdir())) // arguments.limit)
    extract(arguments, f"--shard 0/{shard} {photographs} --root {photographs}", features)
    pipe(f"ovs-cluster -q --method lightcluster -j {arguments.jobs} {features} -o {folder}/pieces.json")
    pipe(f"ovs-refine -q -j {arguments.jobs} {folder}/pieces.json -o {folder}/refined.json")
    rows: list[tuple[str, ...]] = []
    together = f"ovs-cluster -q --method kmeans --scope dataset {features} --seed SEED -j {arguments.jobs}"
    pieces = f"ovs-label -q --clusters 11 --seed SEED {folder}/refined.json {features} -j {arguments.jobs}"
    for label, command in (
        ("k-means of all patches, K = 11", f"{together} -k 11"),
        ("k-means of all patches, K = 27", f"{together} -k 27"),
        ("lightcluster, refined, labelled, K = 11", pieces),
    ):
        made = []
        for seed in range(arguments.seeds):
            made.append(f"{folder}/{len(rows)}-{seed}.json")
            pipe(f"{command.replace('SEED', str(seed))} -o {made[-1]}")
        line = f"ovs-eval -q --metric miou --match hungarian --layout camvid --gt {truth} --images listed --json --seeds {' '.join(made)}"
        found = json.loads(pipe(line))["seeds"]
        cells = [f"{100 * found[k]['mean']:.1f} ± {100 * found[k]['std']:.1f}" for k in ("mIoU", "mIoU_strict", "pixel_accuracy")]
        rows.append((label, *cells))
    return section("Classes, CamVid", ("masks", "mIoU", "mIoU, predicted classes count too", "pixel accuracy"), rows)


def oracle(arguments: argparse.Namespace, folder: Path) -> list[str]:
    rows = []
    for name, truth, root in (
        ("camvid", open_semantic_truth(str(DATA / "camvid"), layout="camvid"), DATA / "camvid" / "images"),
        ("coco_entities", open_semantic_truth(str(truth_file("coco_entities"))), DATA / "coco_entities"),
    ):
        if not (folder / f"{name}.npz").exists():
            where = f"{root} --root {root}" if name == "camvid" else first_images(truth_file(name), arguments.limit, folder)
            extract(arguments, where, folder / f"{name}.npz")
        for label, plain in ((arguments.model, False), ("plain colours", True)):
            cells = [percent(oracle_miou(folder / f"{name}.npz", root, truth, k, colours=plain)) for k in (4, 8, 16)]
            rows.append((name, label, *cells))
    return section("Oracle: each cluster takes its majority class; mIoU", ("set", "features", "K = 4", "K = 8", "K = 16"), rows)


def oracle_miou(path: Path, root: Path, truth: SemanticTruth, k: int, *, colours: bool) -> float:
    scores = SemanticScores(truth.options("ids", joint=False))
    options = KMeansOptions(k=k, metric="euclidean" if colours else "cosine")
    for n, features in enumerate(maps_of(path)):
        match = truth.find(features.image)
        assert match is not None, features.image
        labels = truth.load(match.index).labels
        height, width, _ = features.patch.shape
        if colours:
            pixels = load_photograph(features.image, str(root), max_pixels=1 << 28)
            rows = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).reshape(height * width, 3).astype(np.float32)
        else:
            rows = unit_rows(features.patch.reshape(height * width, -1))
        clusters = fit_each(torch.from_numpy(rows)[None], options, seeds=[0])[0][0].numpy().reshape(height, width).astype(np.int32)
        masks = masks_of_labels(features.image, clusters, np.zeros((height, width), np.float32), ShapeOptions(), categories=True)
        predicted = painted_prediction(masks).labels
        scores.add(n, count_pairs(labels, majority(labels, predicted)))
    return float(scores.values(np.ones((n + 1, 1), np.int32))[0, 0])


def majority(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Every predicted id as the class that most of its pixels have."""
    counts = np.zeros((predicted.max() + 2, max(1, truth.max() + 1)), np.int64)
    inside = truth >= 0
    np.add.at(counts, (predicted[inside], truth[inside]), 1)
    found = np.where(counts.any(1), counts.argmax(1), -1).astype(np.int32)
    return np.where(predicted >= 0, found[predicted], -1).astype(np.int32)


def maps_of(path: Path) -> Iterator[FeatureMap]:
    with path.open("rb") as stream:
        for record in open_features(stream, path.name)[1]:
            assert isinstance(record, FeatureMap)
            yield record


def main() -> None:
    parser = bench_parser(__doc__, model="builtin", limit=60, jobs=True, markdown=True)
    parser.add_argument("--size", type=int, default=512, help="pixels a side at which photographs are described [512]")
    parser.add_argument("--seeds", type=int, default=5, help="how many random seeds [5]")
    parser.add_argument("--only", type=list_of(str, PARTS), default=",".join(PARTS), help=f"tables [{','.join(PARTS)}]")
    arguments = parser.parse_args()
    lines = ["# Semantic segmentation without labels", "", f"{made_by(surroundings())}. Percent."]
    with tempfile.TemporaryDirectory() as temporary:
        for part in (foreground, classes, oracle):
            if part.__name__ in arguments.only:
                lines += part(arguments, Path(temporary))
                progress("\n".join(lines[-8:]))
    publish(lines, arguments.markdown)


if __name__ == "__main__":
    main()
