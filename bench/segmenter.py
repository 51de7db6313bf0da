"""Whether a segmenter gets better than the pseudo-labels it learns from, on generated scenes whose truth is known.

The long form of tests/train/test_noise_averages_out.py: scenes of a few textured things with parts (tests/scenes.py), and labels with
faults at known rates. A ``tiny`` segmenter on the built-in network, its queries learned one by one, is trained on the labels (ovs-train
segment), then corrects itself with the dynamic and with a fixed threshold (ovs-train correct). All are scored on other scenes: AR against
the truth, F1 of ancestor pairs, and how many masks of each size the teacher was sure of.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness.arguments import bench_parser
from harness.commands import logged, run
from harness.machine import surroundings
from harness.report import made_by, percent, progress, publish, table

from tests.scenes import Faults, write_scenes

FAULTS = Faults(dropped=0.3, merged=0.2, jitter=6)
COMMON = ["--device", "cpu", "-j", "1", "-q", "--optimizer", "adamw", "--clip", "10", "--weight-decay", "0.02", "--batch", "8"]
SEGMENT = [
    "--set", "size=tiny", "--set", "kinds=0", "--set", "side=96", "--set", "smallest_scale=0.9", "--set", "largest_scale=1.2",
    "--set", "paste=0",
    "--set", "colours=false", "--set", "backbone_rate=1", "--set", "layer_decay=1", "--lr", "4e-3", "--warmup", "50",
]  # fmt: skip


def scores(masks: Path, truth: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in ("ar", "hierarchy"):
        found |= json.loads(run("ovs-eval", "--metric", metric, "--json", "--gt", truth, masks))["metrics"]
    return found


def row(name: str, found: dict[str, Any], minutes: float | None) -> list[str]:
    values = [percent(found[key] or 0) for key in ("AR@1000", "AR_S", "AR_M", "AP", "f1", "recall_all")]
    return [name, *values, "" if minutes is None else f"{minutes:.1f}"]


def sizes(folder: Path) -> str:
    last = logged(folder)[-1]["losses"]
    return " / ".join(f"{last[f'teacher {size}']:.2f}" for size in ("small", "medium", "large"))


def main() -> None:
    parser = bench_parser(__doc__, markdown=True)
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps of ovs-train segment [4000]")
    parser.add_argument("--correct", type=int, default=1000, help="optimizer steps of ovs-train correct [1000]")
    parser.add_argument("--scenes", type=int, default=2000, help="scenes to learn from [2000]")
    parser.add_argument("--seeds", type=int, default=1, help="how many random seeds [1]")
    arguments = parser.parse_args()
    about, rows = surroundings(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scenes(folder / "train", range(arguments.scenes), faults=FAULTS)
        write_scenes(folder / "test", range(10**6, 10**6 + 200), faults=FAULTS)
        truth, unseen = folder / "test" / "truth.json", folder / "test" / "images"
        rows.append(row("the labels' own kind", scores(folder / "test" / "pseudo.json", truth), None))
        inputs = [folder / "train" / "pseudo.json", "--images", folder / "train" / "images"]
        for seed in range(arguments.seeds):

            def judge(name: str, made: Path, begun: float, seed: int = seed) -> None:
                minutes = (time.monotonic() - begun) / 60
                masks = folder / f"{made.name}.json"
                run("ovs-predict", "--checkpoint", made, "--device", "cpu", "-q", unseen, "-o", masks)
                rows.append(row(f"{name}, seed {seed}", scores(masks, truth), minutes))
                progress(*rows[-1])

            first, begun = folder / f"segment-{seed}", time.monotonic()
            run("ovs-train", "segment", *inputs, "-o", first, *COMMON, *SEGMENT, "--steps", arguments.steps, "--seed", seed)
            judge("segment", first, begun)
            for threshold in ("dynamic", "fixed"):
                made, begun = folder / f"{threshold}-{seed}", time.monotonic()
                run(
                    "ovs-train", "correct", *inputs, "--from", first, "-o", made, *COMMON, "--steps", arguments.correct, "--seed", seed,
                    "--lr", "1e-3", "--warmup", "50", "--threshold", threshold, "--set", "momentum=0.995",
                )  # fmt: skip
                judge(f"correct, {threshold} threshold (teacher's masks an image at the end: {sizes(made)})", made, begun)
    text = (
        f"{made_by(about)} ({about['machine']['cpus']} cores). {arguments.scenes} scenes of 96 × 96 pixels with faulty labels "
        f"({FAULTS.dropped:.0%} of the masks left out, {FAULTS.merged:.0%} of the things with another in their mask, outlines off by up "
        f"to {FAULTS.jitter} pixels), scored on 200 others."
    )
    columns = ("masks", "AR@1000", "AR_S", "AR_M", "AP", "F1 of ancestor pairs", "recall of all pairs", "minutes")
    publish(["# A segmenter and its labels", "", text, "", *table(columns, rows)], arguments.markdown)


if __name__ == "__main__":
    main()
