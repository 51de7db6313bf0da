"""What each value that LightCluster leaves open is worth, and which features: its foreground against what annotators outlined.

Foreground is whole people in ccp_parts, things in coco_entities, as in bench/semantic.py. ``values``: with the first ``--features``
every open value is set to others than its default, one at a time, by ``ovs-cluster --set``. ``refined``: what ``ovs-refine`` makes of the
image level, which has a mask in every photograph, starting from the soft margin or from the masks. Differences are paired, with 95 %
intervals by bootstrap over photographs. ``features``: all of them, level by level, at the defaults, and a rectangle in the middle of
every photograph. Superclasses and clusters of the data set come from the photographs scored here, so ``--limit`` changes the result.
All is done by the commands. docs/reference/choices.md says how the networks of ``--features`` are trained.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser, list_of
from harness.commands import pipe
from harness.machine import surroundings, without_folders
from harness.photographs import first_images, truth_file
from harness.report import made_by, metric_text, progress, publish, section
from semantic import FOREGROUND, LEVELS, foreground_cells, foreground_scores

from ovskit.core.formats.streams.features import open_features
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.masks.rle import encode
from ovskit.core.records import FeatureMap, Mask, MaskSet

PARTS = ("values", "refined", "features")
VARIED = {
    "superclasses": (1, 2, 8, 16),
    "side": ("share", "smaller"),
    "sign": ("share", "images"),
    "vote": ("two",),
    "overlap": (0, 0.25, 0.75, 1),
    "min_patches": (1, 16),
    "connectivity": (4,),
    "fallback": ("image", "none"),
    "metric": ("euclidean",),
    "restarts": (5,),
}
REFINED = {
    "snap,guided": "--method snap,guided",
    "convcrf, from the masks": "--method convcrf --set convcrf.sharpness=inf",
    **{
        f"convcrf, from the soft margin, sharpness {sharpness}": f"--method convcrf --set convcrf.sharpness={sharpness}"
        for sharpness in (1, 2, 4, 8)
    },
}


def values(name: str, features: Path, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The table of open values of one set."""
    begin = f"ovs-cluster -q --method lightcluster -j {arguments.jobs} {features}"
    rows = [("defaults", "")]
    rows += [(f"seed {seed}", f"--seed {seed}") for seed in range(1, arguments.seeds)]
    rows += [(f"{key} {value}", f"--set {key}={value}") for key, others in VARIED.items() for value in others]
    made = []
    for k, (_, options) in enumerate(rows):
        made.append(folder / f"{name}-{k}.json")
        pipe(f"{begin} {options} -o {made[-1]}")
    return table(f"Open values, {name}", [label for label, _ in rows], made, name, arguments, folder)


def refined(name: str, features: Path, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The table of refiners of one set."""
    made = [folder / f"{name}-image.json"]
    pipe(f"ovs-cluster -q --method lightcluster --emit image -j {arguments.jobs} {features} -o {made[0]}")
    for options in REFINED.values():
        made.append(folder / f"{name}-refined-{len(made)}.json")
        pipe(f"ovs-refine -q {options} -j {arguments.jobs} {made[0]} -o {made[-1]}")
    return table(f"The image level refined, {name}", ["not refined", *REFINED], made, name, arguments, folder)


def table(title: str, labels: list[str], made: list[Path], name: str, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Masks files scored, and their differences to the first."""
    found = foreground_scores(truth_file(name), made, folder)
    gains = {str(pair["path"]): metric_text(pair, "mIoU", "+.2f") for pair in found["differences"]}
    rows = []
    for label, one in zip(labels, found["files"], strict=True):
        both, foreground = foreground_cells(one)
        rows.append((label, both, gains.get(str(one.get("path")), ""), foreground))
    title = f"{title}, {arguments.limit} photographs, `{without_folders(arguments.features[0])}`"
    return section(title, ("", "mIoU of both", "difference", "IoU of foreground"), rows)


def levels(name: str, features: list[Path], arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The table of features, level by level, of one set."""
    truth, rows = truth_file(name), []
    for k, (text, path) in enumerate(zip(arguments.features, features, strict=True)):
        made = []
        for level in LEVELS:
            made.append(folder / f"{name}-{k}-{level}.json")
            pipe(f"ovs-cluster -q --method lightcluster --emit {level} -j {arguments.jobs} {path} -o {made[-1]}")
        found = foreground_scores(truth, made, folder)["files"]
        rows.append((f"`{without_folders(text)}`", *(", ".join(foreground_cells(one)) for one in found)))
    (one,) = foreground_scores(truth, [middles(features[0], folder / f"{name}-middles.json")], folder)["files"]
    rows.append(("the middle of each photograph", ", ".join(foreground_cells(one)), "", "", ""))
    title = f"Features, {name}, {arguments.limit} photographs: mIoU of both, IoU of foreground"
    return section(title, ("features", *LEVELS), rows)


def middles(features: Path, path: Path) -> Path:
    """What no feature is needed for: a rectangle of half the width and half the height in the middle of every image."""
    with features.open("rb") as stream, path.open("wb") as out:
        header, records = open_features(stream, features.name)
        writer = MasksWriter(out, MasksHeader(root=header.root))
        for record in records:
            assert isinstance(record, FeatureMap)
            image = record.image
            inside = np.zeros((image.height, image.width), np.uint8)
            inside[image.height // 4 : image.height * 3 // 4, image.width // 4 : image.width * 3 // 4] = 1
            coded = encode(inside)
            writer.write(MaskSet(image, (Mask(1, image.id, coded, rle.area(coded), rle.bbox(coded)),)))
        writer.finish()
    return path


def main() -> None:
    parser = bench_parser(__doc__, limit=150, sets=FOREGROUND, jobs=True, markdown=True)
    parser.add_argument("--features", action="append", help="options of ovs-extract; several times [--model builtin --size 512]")
    parser.add_argument("--only", type=list_of(str, PARTS), default=",".join(PARTS), help=f"tables [{','.join(PARTS)}]")
    parser.add_argument("--seeds", type=int, default=4, help="how many random seeds [4]")
    arguments = parser.parse_args()
    arguments.features = arguments.features or ["--model builtin --size 512"]
    lines = ["# LightCluster's open values", "", f"{made_by(surroundings())}. Percent."]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in arguments.sets:
            made = []
            for k, options in enumerate(arguments.features):
                made.append(folder / f"{name}-{k}.npz")
                pipe(f"ovs-extract -q --cls {options} {first_images(truth_file(name), arguments.limit, folder)} -o {made[-1]}")
            for part in (values, refined):
                if part.__name__ in arguments.only:
                    lines += part(name, made[0], arguments, folder)
            if "features" in arguments.only:
                lines += levels(name, made, arguments, folder)
            progress("\n".join(lines))
    publish(lines, arguments.markdown)


if __name__ == "__main__":
    main()
