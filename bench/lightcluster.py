"""What each value that LightCluster leaves open is worth, and which features: its foreground against what annotators outlined.

    python bench/lightcluster.py [--features="--model builtin --size 512"] [--features="--model timm:NAME --weights FILE --facet key"]
                                 [--only values,refined,features] [--limit 150] [--seeds 4] [--sets ccp_parts,coco_entities]
                                 [--markdown FILE] [--jobs 1]

Foreground is whole people in ccp_parts, things in coco_entities, as in bench/semantic.py. ``values``: with the first ``--features``
every open value is set to others than its default, one at a time, by ``ovs-cluster --set``. ``refined``: what ``ovs-refine`` makes of the
image level, which has a mask in every photograph, starting from the soft margin or from the masks. Differences are paired, with 95 %
intervals by bootstrap over photographs. ``features``: all of them, level by level, at the defaults, and a rectangle in the middle of
every photograph. Superclasses and clusters of the data set are of the photographs scored here: another number of them is another
result. All is done by the commands. docs/reference/choices.md says how the networks of ``--features`` are trained.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from quality import DATA, command_line, surroundings, without_folders
from semantic import FOREGROUND, LEVELS, foreground_space, images_of, pipe, spread

from ovskit.core.formats.streams.features import open_features
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.masks.rle import encode
from ovskit.core.records import FeatureMap, Mask, MaskSet

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


def scored(files: list[Path], truth: Path, folder: Path) -> dict[str, Any]:
    """``ovs-eval``'s answer for ``files``, differences being to the first."""
    line = f"ovs-eval --metric miou --json --bootstrap 1000 --images listed --names {foreground_space(truth, folder)}"
    found: dict[str, Any] = json.loads(pipe(f"{line} --gt {shlex.quote(str(truth))} {' '.join(map(str, files))}"))
    return found if "files" in found else {"files": [found]}


def foreground_iou(one: dict[str, Any]) -> float:
    return 100 * float(one["classes"][1]["iou"])


def values(name: str, features: Path, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The table of open values of one set."""
    begin = f"ovs-cluster --method lightcluster -j {arguments.jobs} {features}"
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
    pipe(f"ovs-cluster --method lightcluster --emit image -j {arguments.jobs} {features} -o {made[0]}")
    for options in REFINED.values():
        made.append(folder / f"{name}-refined-{len(made)}.json")
        pipe(f"ovs-refine {options} -j {arguments.jobs} {made[0]} -o {made[-1]}")
    return table(f"The image level refined, {name}", ["not refined", *REFINED], made, name, arguments, folder)


def table(title: str, labels: list[str], made: list[Path], name: str, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Masks files scored, and their differences to the first."""
    found = scored(made, DATA / name / FOREGROUND[name], folder)
    lines = [
        "",
        f"## {title}, {arguments.limit} photographs, `{without_folders(arguments.features[0])}`",
        "",
        "| | mIoU of both | difference | IoU of foreground |",
        "|---|---|---|---|",
    ]
    for label, one in zip(labels, found["files"], strict=True):
        lines.append(f"| {label} | {spread(one, 'mIoU')} | {difference(one, found)} | {foreground_iou(one):.1f} |")
    return lines


def difference(one: dict[str, Any], found: dict[str, Any]) -> str:
    for pair in found["differences"]:
        if pair["path"] == one["path"]:
            value, (low, high) = pair["metrics"]["mIoU"], pair["intervals"]["mIoU"]
            return f"{100 * value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
    return ""


def levels(name: str, features: list[Path], arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The table of features, level by level, of one set."""
    lines = [
        "",
        f"## Features, {name}, {arguments.limit} photographs: mIoU of both, IoU of foreground",
        "",
        f"| features | {' | '.join(LEVELS)} |",
        "|---|" + "---|" * len(LEVELS),
    ]
    for k, (text, path) in enumerate(zip(arguments.features, features, strict=True)):
        made = []
        for level in LEVELS:
            made.append(folder / f"{name}-{k}-{level}.json")
            pipe(f"ovs-cluster --method lightcluster --emit {level} -j {arguments.jobs} {path} -o {made[-1]}")
        found = scored(made, DATA / name / FOREGROUND[name], folder)["files"]
        cells = [f"{spread(one, 'mIoU')}, {foreground_iou(one):.1f}" for one in found]
        lines.append(f"| `{without_folders(text)}` | " + " | ".join(cells) + " |")
    (one,) = scored([middles(features[0], folder / f"{name}-middles.json")], DATA / name / FOREGROUND[name], folder)["files"]
    lines.append(f"| the middle of each photograph | {spread(one, 'mIoU')}, {foreground_iou(one):.1f} | | | |")
    return lines


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", action="append", help="options of ovs-extract; several times")
    parser.add_argument("--only", default="values,refined,features")
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--sets", default=",".join(FOREGROUND))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    arguments.features = arguments.features or ["--model builtin --size 512"]
    about = surroundings()
    lines = [
        "# LightCluster's open values",
        "",
        f"Made by `{command_line()}` at commit {about['commit']}, {about['date']}, on {about['machine']['cpu']}. Percent.",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in arguments.sets.split(","):
            made = []
            for k, options in enumerate(arguments.features):
                made.append(folder / f"{name}-{k}.npz")
                pipe(f"ovs-extract --cls {options} {images_of(DATA / name / FOREGROUND[name], arguments.limit, folder)} -o {made[-1]}")
            for part in (values, refined):
                if part.__name__ in arguments.only.split(","):
                    lines += part(name, made[0], arguments, folder)
            if "features" in arguments.only.split(","):
                lines += levels(name, made, arguments, folder)
            print("\n".join(lines), file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    if arguments.markdown:
        arguments.markdown.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
