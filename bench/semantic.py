"""What LightCluster and k-means give as semantic segmentation, on photographs that annotators outlined.

    python bench/semantic.py [--model builtin] [--size 512] [--limit 60] [--seeds 5] [--only foreground,classes,oracle]
                             [--markdown FILE] [--jobs 1]

``foreground``: the foreground of each of LightCluster's levels, and of all together, before and after ``ovs-refine``, against the union of
what was outlined: whole people in ccp_parts, things in coco_entities. IoU of foreground and background, intervals by bootstrap.
``classes``: CamVid's 11 classes by unsupervised clusters matched to them (Hungarian, on the scored photographs: a ceiling): k-means of all
patches; LightCluster's pieces, refined and gathered by ``ovs-label``. Mean and deviation over seeds.
``oracle``: S-Seg's ceiling: each of K clusters of an image takes the class that most of its pixels have; mIoU on CamVid and coco_entities
for K = 4, 8, 16, against the same clusters of plain colours.

All is done by the commands, but for the oracle. Photographs come from ``$OVSKIT_TEST_DATA`` and are few: compare within a table only.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from quality import DATA, command_line, surroundings

import torch  # isort: skip  # after quality, which sets the number of threads

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
FOREGROUND = {"ccp_parts": "parts_dev.json", "coco_entities": "entities_dev.json"}


def pipe(*commands: str, quiet: bool = True) -> bytes:
    """The output of a pipe of commands."""
    line = " | ".join(f"{command} -q" if quiet else command for command in commands)
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout


def extract(arguments: argparse.Namespace, images: str, features: Path) -> None:
    pipe(f"ovs-extract --cls --model {arguments.model} --size {arguments.size} {images} -o {features}")


def images_of(truth: Path, limit: int, folder: Path) -> str:
    """The first images of a COCO file as options of ``ovs-extract``."""
    path = folder / f"{truth.parent.name}.json"
    data = json.loads(truth.read_text())
    path.write_text(json.dumps({"images": data["images"][:limit], "annotations": [], "categories": []}))
    return f"--images {shlex.quote(str(path))} --root {shlex.quote(str(truth.parent))}"


def foreground_space(truth: Path, folder: Path) -> Path:
    """Two classes: what was outlined, things where a file tells them apart, and all else."""
    categories = json.loads(truth.read_text())["categories"]
    names = [str(c["name"]) for c in categories if c.get("isthing", 1)]
    classes = [{"id": 0, "name": "background"}, {"id": 1, "name": "entity", "synonyms": names}]
    path = folder / f"{truth.parent.name}-foreground.json"
    path.write_text(json.dumps({"format": "ovskit.labels/1", "name": "foreground", "version": 1, "background": 0, "classes": classes}))
    return path


def foreground(arguments: argparse.Namespace, folder: Path) -> list[str]:
    lines = []
    for name, file in FOREGROUND.items():
        truth = DATA / name / file
        features = folder / f"{name}.npz"
        extract(arguments, images_of(truth, arguments.limit, folder), features)
        made = []
        for level in LEVELS:
            made.append(folder / f"{name}-{level}.json")
            pipe(f"ovs-cluster --method lightcluster --emit {level} -j {arguments.jobs} {features} -o {made[-1]}")
        made.append(folder / f"{name}-refined.json")
        pipe(f"ovs-refine -j {arguments.jobs} {made[-2]} -o {made[-1]}")
        files = " ".join(map(str, made))
        space = foreground_space(truth, folder)
        found = json.loads(
            pipe(f"ovs-eval --metric miou --json --bootstrap 1000 --images listed --names {space} --gt {shlex.quote(str(truth))} {files}")
        )
        lines += [
            "",
            f"## Foreground, {name}, {arguments.limit} photographs",
            "",
            "| masks | mIoU of both | IoU of foreground |",
            "|---|---|---|",
        ]
        for label, one in zip([*LEVELS, "final, refined"], found["files"], strict=True):
            lines.append(f"| {label} | {spread(one, 'mIoU')} | {100 * one['classes'][1]['iou']:.1f} |")
    return lines


def classes(arguments: argparse.Namespace, folder: Path) -> list[str]:
    truth, photographs = DATA / "camvid", DATA / "camvid" / "images"
    features = folder / "camvid.npz"
    # Every so many frames of the drive, not its beginning.
    shard = max(1, len(list(photographs.iterdir())) // arguments.limit)
    extract(arguments, f"--shard 0/{shard} {photographs} --root {photographs}", features)
    pipe(f"ovs-cluster --method lightcluster -j {arguments.jobs} {features} -o {folder}/pieces.json")
    pipe(f"ovs-refine -j {arguments.jobs} {folder}/pieces.json -o {folder}/refined.json")
    lines = ["", "## Classes, CamVid", "", "| masks | mIoU | mIoU, predicted classes count too | pixel accuracy |", "|---|---|---|---|"]
    together = f"ovs-cluster --method kmeans --scope dataset {features} --seed SEED -j {arguments.jobs}"
    pieces = f"ovs-label --clusters 11 --seed SEED {folder}/refined.json {features} -j {arguments.jobs}"
    for label, command in (
        ("k-means of all patches, K = 11", f"{together} -k 11"),
        ("k-means of all patches, K = 27", f"{together} -k 27"),
        ("lightcluster, refined, labelled, K = 11", pieces),
    ):
        made = []
        for seed in range(arguments.seeds):
            made.append(f"{folder}/{len(lines)}-{seed}.json")
            pipe(f"{command.replace('SEED', str(seed))} -o {made[-1]}")
        line = f"ovs-eval --metric miou --match hungarian --layout camvid --gt {truth} --images listed --json --seeds {' '.join(made)}"
        found = json.loads(pipe(line))["seeds"]
        cells = [f"{100 * found[k]['mean']:.1f} ± {100 * found[k]['std']:.1f}" for k in ("mIoU", "mIoU_strict", "pixel_accuracy")]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def oracle(arguments: argparse.Namespace, folder: Path) -> list[str]:
    lines = [
        "",
        "## Oracle: each cluster takes its majority class; mIoU",
        "",
        "| set | features | K = 4 | K = 8 | K = 16 |",
        "|---|---|---|---|---|",
    ]
    for name, truth, root in (
        ("camvid", open_semantic_truth(str(DATA / "camvid"), layout="camvid"), DATA / "camvid" / "images"),
        ("coco_entities", open_semantic_truth(str(DATA / "coco_entities" / FOREGROUND["coco_entities"])), DATA / "coco_entities"),
    ):
        if not (folder / f"{name}.npz").exists():
            where = f"{root} --root {root}" if name == "camvid" else images_of(DATA / name / FOREGROUND[name], arguments.limit, folder)
            extract(arguments, where, folder / f"{name}.npz")
        for label, plain in ((arguments.model, False), ("plain colours", True)):
            cells = [f"{100 * oracle_miou(folder / f'{name}.npz', root, truth, k, colours=plain):.1f}" for k in (4, 8, 16)]
            lines.append(f"| {name} | {label} | " + " | ".join(cells) + " |")
    return lines


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


def spread(one: dict[str, Any], name: str) -> str:
    low, high = one["intervals"][name]
    return f"{100 * one['metrics'][name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="foreground,classes,oracle")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    about = surroundings()
    lines = [
        "# Semantic segmentation without labels",
        "",
        f"Made by `{command_line()}` at commit {about['commit']}, {about['date']}, on {about['machine']['cpu']}. Percent.",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        parts: Sequence[Any] = (foreground, classes, oracle)
        for part in parts:
            if part.__name__ in arguments.only.split(","):
                lines += part(arguments, Path(temporary))
                print("\n".join(lines[-8:]), file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    if arguments.markdown:
        arguments.markdown.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
