"""What a segmenter learns on a GPU in a few minutes: ovs-train segment, then correct, scored on photographs that annotators outlined.

    python -m gpu.learn --lines LINES.jsonl --out OUT [--pack PACK] [--minutes 5] [--from FILE] [--device cuda] [--jobs 16]
                              [--size small] [--batch N] [--steps N] [--set NAME=X …] [--dry]

PACK is what bench/gpu_pack.py made. Lines (part "learn"): how good the masks are that are learned from; how many samples a second each
batch size gives, and how long updates wait for them; the training; scores with 95 % intervals, and paired differences to the 100 best
masks of the pipeline, before (with --from), after ``segment`` and after ``correct``. Two thirds of the time for training are for
``segment``. ``--batch`` is tried alone; otherwise the smallest that a doubling no longer makes much faster is chosen. ``--steps`` are
the optimizer steps of ``segment``, of which ``correct`` makes a tenth, instead of as many as fit into the minutes. ``--set`` is a setting
of ``ovs-train segment`` in place of the one chosen here.

OUT gets segmenter.safetensors and corrected.safetensors, weights in halves and so of 16 MiB at most, and log.jsonl. ``--from`` takes
either, so that the minutes on a card add up: each time a warm-up, then a cosine to zero. ``--dry`` does all of it on a few generated
scenes on the CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.commands import CommandError, logged, per_annotator, run, scores
from harness.report import metric_text, percent

from gpu import environment
from gpu.carry import halved, restored
from gpu.lines import Line, Lines, Value, read_lines, table
from gpu.unpack import Scored, dry_pack, scored_sets, training_files
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import settings_from
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.segment import SegmentSettings

PART = "learn"
METRICS = ("AR@10", "AR@1000", "AR_S", "AR_M", "AR_L", "AP")
# Chosen on a CPU, docs/concepts/segmenter.md.
SEGMENT = SegmentSettings(kinds=4, queries=324, side=192, smallest_scale=0.8, largest_scale=1.6, paste=0, max_masks=60, backbone_rate=0.2)
MOMENTUM = 0.99  # of the teacher
CLIP = 10.0
DRY = {"size": "tiny", "points": 64, "side": 64, "queries": 36}
RATE, RATE_AT = 1e-3, 16  # the learning rate and the batch that it is for; it goes with the root of the batch [choice]
LARGEST_RATE = 2e-3
BATCHES = (8, 16, 32, 64, 128)
HELPS = 1.15  # so much faster must a doubled batch be
SIZE = 320  # at which photographs are scored, pixels
CORRECT_RATE = 3e-4
SLOWER = 3.0  # an update of correct beside one of segment: a second half of the batch, and the teacher's look
OUT_OF_TIME = 3  # the exit code of ovs-train --minutes
OVERHEAD = 15.0  # seconds that a command takes before its first update


@dataclass(frozen=True)
class Job:
    """What all steps need."""

    lines: Lines
    out: Path
    work: Path
    device: str
    jobs: int
    dry: bool
    settings: SegmentSettings
    steps: int | None
    batches: Sequence[int]
    sets: Sequence[Scored]
    masks: Path
    tars: Sequence[Path]

    def train(self, recipe: str, folder: Path, options: TrainOptions, *words: object) -> None:
        """``ovs-train`` with more ``words``; if its minutes are over before its steps, what it has is made a model."""
        line = ["ovs-train", recipe, self.masks, *(word for tar in self.tars for word in ("--images", tar)), "-o", folder, "-q"]
        line += ["--device", self.device, "-j", self.jobs, "--cache", self.work / "targets", *words]
        line += ["--optimizer", options.optimizer, "--lr", f"{options.learning_rate:.2g}", "--warmup", options.warmup]
        line += ["--clip", options.clip_norm, "--weight-decay", options.weight_decay]
        line += ["--log-every", 1 if self.dry else 20, "--checkpoint-every", 1_000_000]
        try:
            run(*line, "--steps", options.steps, *(["--minutes", f"{options.minutes:.3f}"] if options.minutes else []))
        except CommandError as error:
            if error.code != OUT_OF_TIME:
                raise
            # As many updates as were made are all there are to be, but for one.
            run(*line, "--steps", logged(folder)[-1]["step"] + 1, "--resume")


def set_words(settings: SegmentSettings) -> list[str]:
    """``--set NAME=X`` for all that is not as ``ovs-train segment`` has it by default."""
    changed = [(field.name, getattr(settings, field.name)) for field in fields(settings) if getattr(settings, field.name) != field.default]
    texts = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in changed]
    return [word for text in texts for word in ("--set", text)]


def labels(job: Job) -> None:
    """How good the masks of the pipeline are on the photographs that are scored."""
    for one in job.sets:
        with job.lines.measuring(PART, f"labels, {one.name}") as values:
            found = json.loads(one.scores.read_text())["files"][0]
            values["AR@1000 of all"] = metric_text(found, "AR@1000")
            best = scores(one.truth, [one.explored], *per_annotator(one.name))["files"][0]
            values.update(shown(best))


def shown(found: Mapping[str, Any]) -> dict[str, Value]:
    """A file's scores, in percent."""
    return {name: metric_text(found, name) if name == "AR@1000" else percent(found["metrics"][name]) for name in METRICS}


def judge(job: Job, name: str, model: Path, earlier: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """Score what a segmenter sees in each set; returns the masks files, to be compared with later."""
    made: dict[str, Path] = {}
    for one in job.sets:
        with job.lines.measuring(PART, f"{name}, {one.name}") as values:
            masks = job.work / f"{one.name}-{name}.json"
            words: list[object] = ["--queries", 100 if job.dry else 1000] if job.settings.kinds else []
            words += ["--device", job.device, "-j", job.jobs, "-q", "--size", SIZE, "--images", one.truth, "--root", one.root]
            run("ovs-predict", "--checkpoint", model, *words, "-o", masks)
            files = [one.explored, *([earlier[one.name]] if earlier and one.name in earlier else []), masks]
            found = scores(one.truth, files, *per_annotator(one.name))
            values.update(shown(found["files"][-1]))
            values["AR@1000 less the 100 best of the pipeline"] = metric_text(found["differences"][-1], "AR@1000", "+.1f")
            if len(files) > 2:
                against = scores(one.truth, files[1:], *per_annotator(one.name))
                values["AR@1000 less before"] = metric_text(against["differences"][-1], "AR@1000", "+.1f")
            made[one.name] = masks
    return made


def probe(job: Job) -> tuple[int, float]:
    """Samples a second for each batch size; the batch size from which a larger one helps little, and its samples a second."""
    words = [sys.executable, "-m", "gpu.probe", str(job.masks), *map(str, job.tars)]
    words += ["--device", job.device, "--jobs", str(job.jobs), "--cache", str(job.work / "targets"), "--batches", *map(str, job.batches)]
    words += ["--steps", "2" if job.dry else "30", *set_words(job.settings)]
    with job.lines.measuring(PART, "samples a second by batch size") as values:
        found = {int(batch): one for batch, one in json.loads(run(*words, extra=environment())).items()}
        for batch, one in found.items():
            values[f"{batch}"] = f"{one['samples_per_second']:.0f} (waiting {one['waiting']:.0%}, {one['mib']:.0f} MiB)"
        chosen = min(found)
        for batch in sorted(found):
            if found[batch]["samples_per_second"] > HELPS * found[chosen]["samples_per_second"]:
                chosen = batch
        return chosen, float(found[chosen]["samples_per_second"])
    return job.batches[0], 1.0


def learn(job: Job, seconds: float, begin: Path | None) -> None:
    """All of it, in about so many seconds."""
    until = time.monotonic() + seconds
    labels(job)
    before = judge(job, "before", begin) if begin is not None else None
    judging = 20.0 * len(job.sets) * (0 if job.dry else 1)  # seconds
    batch, rate = probe(job)
    left = until - time.monotonic() - 2 * judging - 2 * OVERHEAD
    learning_rate = min(LARGEST_RATE, RATE * (batch / RATE_AT) ** 0.5)
    segment, corrected = job.work / "segment", job.work / "correct"

    steps = job.steps or max(50, int(left * 2 / 3 * rate / batch))
    with job.lines.measuring(PART, "segment") as values:
        minutes = None if job.steps else max(60.0, left * 0.7) / 60
        options = TrainOptions(
            steps=steps, learning_rate=learning_rate, warmup=min(200, steps // 5), clip_norm=CLIP, weight_decay=0.05, minutes=minutes
        )
        words = ["--batch", batch, *set_words(job.settings), *(["--init", begin] if begin else [])]
        job.train("segment", segment, options, *words)
        values.update(course(segment, batch))
        shutil.copyfile(segment / "log.jsonl", job.out / "log.jsonl")
    with job.lines.measuring(PART, "segment, kept") as values:
        values["MiB"] = halved(segment, job.out / "segmenter.safetensors")
    after = judge(job, "segment", segment, before)

    left = until - time.monotonic() - judging - OVERHEAD
    steps = -(-job.steps // 10) if job.steps else max(20, int(left * rate / batch / SLOWER))
    with job.lines.measuring(PART, "correct") as values:
        minutes = None if job.steps else max(20.0, left) / 60
        options = TrainOptions(
            steps=steps, learning_rate=CORRECT_RATE, warmup=min(50, steps // 5), clip_norm=CLIP, weight_decay=0.02, minutes=minutes
        )
        job.train("correct", corrected, options, "--batch", batch, "--from", segment, "--set", f"momentum={MOMENTUM}")
        values.update(course(corrected, batch))
    with job.lines.measuring(PART, "correct, kept") as values:
        values["MiB"] = halved(corrected, job.out / "corrected.safetensors")
    judge(job, "correct", corrected, after)


def course(run: Path, batch: int) -> dict[str, Value]:
    """What the log says of a run."""
    lines = logged(run)
    last = lines[-1]
    return {
        "updates": last["step"],
        "batch": batch,
        "samples": last["step"] * batch,
        "minutes": round(last["seconds"] / 60, 2),
        "samples/s": max(line["samples_per_second"] for line in lines),
        "waiting for samples": f"{sum(line['waiting'] for line in lines) / len(lines):.0%}",
        "loss": f"{lines[0]['losses']['loss']:.2f} to {last['losses']['loss']:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--from", type=Path, dest="begin", metavar="FILE")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--size", default="small")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=X", help="a setting of ovs-train segment; several times")
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    try:
        given = settings_from(SegmentSettings, arguments.set)
    except UsageError as error:
        parser.error(str(error))
    lines, known = Lines(arguments.lines), len(read_lines(arguments.lines))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ovskit-learn-") as temporary:
        work = Path(temporary)
        pack = arguments.pack
        if arguments.dry:
            pack = dry_pack(work / "pack")
        if pack is None or not pack.is_dir():
            lines.add(Line(PART, "everything", "skipped", note="no pack; make one with bench/gpu_pack.py and name it with --pack"))
        else:
            masks, tars = training_files(pack, work)
            job = Job(
                lines, arguments.out, work, arguments.device, arguments.jobs, arguments.dry,
                settings=replace(SEGMENT, **{"size": arguments.size} | (DRY if arguments.dry else {}) | given),
                steps=2 if arguments.dry else arguments.steps,
                batches=(1, 2) if arguments.dry else (arguments.batch,) if arguments.batch else BATCHES,
                sets=scored_sets(pack, work), masks=masks, tars=tars,
            )  # fmt: skip
            begin = None if arguments.begin is None else restored(arguments.begin, work / "begun")
            learn(job, 60 * arguments.minutes, begin)
    print(table(read_lines(arguments.lines)[known:]), end="")


if __name__ == "__main__":
    main()
