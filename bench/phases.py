"""SOHES' three phases on the pool of photographs, small enough for a CPU, scored after each phase on photographs that annotators outlined.

1 explore: ``ovs-extract --size 512 | ovs-cluster | ovs-refine | ovs-hier`` on one in ``--share`` photographs of the pool.
2 segment: ``ovs-train segment`` on these masks. 3 correct: ``ovs-train correct`` from there, once with the dynamic threshold, once with
a fixed one (SOHES' Table 3), and, so that more training is not taken for correction, as many further updates of ``ovs-train segment``.

The score of phase 1 is that of its own commands with their defaults on the photographs scored; that of the others is the segmenter's,
which has seen none of them. Intervals are 95 % by bootstrap over photographs; differences are paired, to phase 2. What is in the
folder already is not made again, so a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness.arguments import bench_parser
from harness.commands import logged, per_annotator, pipe, scores
from harness.machine import surroundings
from harness.photographs import SETS, first_images, pool, truth_file
from harness.report import made_by, metric_text, percent, progress, publish, section, table

SEGMENT = (
    "--optimizer adamw --lr 2e-3 --clip 10 --warmup 100 --batch 8 --set size=tiny --set side=192 "
    "--set smallest_scale=0.5 --set largest_scale=1.5 --set paste=0 --set backbone_rate=1"
)
CORRECT = "--optimizer adamw --lr 5e-4 --clip 10 --warmup 50 --batch 8 --set momentum=0.99"
FURTHER = "--lr 5e-4 --warmup 50"
METRICS = ("AR@1000", "AR_S", "AR_M", "AR_L", "AP")


def stage(path: Path, *commands: str) -> None:
    """Run a pipe whose last command makes ``path``, unless it is there."""
    if not path.exists():
        progress(" | ".join(commands))
        pipe(*commands)


def trained(folder: Path, recipe: str, inputs: str, options: str) -> None:
    """A finished run: ``ovs-train`` goes on where it was, and has nothing to do if it is done."""
    made = folder / "model.safetensors"
    stage(made, f"ovs-train {recipe} {inputs} -o {quoted(folder)} --resume --device cpu -q {options}")


def labels_at_the_end(folder: Path) -> str:
    """The teacher's masks an image by size, over the last tenth of the run."""
    losses = [line["losses"] for line in logged(folder)]
    last = losses[-max(1, len(losses) // 10) :]
    return " / ".join(f"{sum(one[f'teacher {size}'] for one in last) / len(last):.1f}" for size in ("small", "medium", "large"))


def explore(path: Path, images: str, jobs: str) -> None:
    """Phase 1, unless it was done."""
    stage(path, f"ovs-extract -q {jobs} {images}", f"ovs-cluster -q {jobs}", f"ovs-refine -q {jobs}", f"ovs-hier -o {quoted(path)}")


def quoted(path: object) -> str:
    return shlex.quote(str(path))


def main() -> None:
    parser = bench_parser(__doc__, limit=50, jobs=True, markdown=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the runs; what is in it is not made again")
    parser.add_argument("--share", type=int, default=3, help="one in so many photographs of the pool [3]")
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps of phase 2 [3000]")
    parser.add_argument("--correct", type=int, default=600, help="optimizer steps of phase 3 [600]")
    parser.add_argument("--segment", default=SEGMENT, metavar="OPTIONS", help="options of ovs-train segment")
    arguments = parser.parse_args()
    folder, jobs = arguments.folder, f"-j {arguments.jobs}"
    folder.mkdir(parents=True, exist_ok=True)
    about = surroundings()

    tars = [quoted(path) for path in pool()]
    pseudo = folder / "pseudo.json"
    explore(pseudo, f"--size 512 --shard 0/{arguments.share} {' '.join(tars)}", jobs)
    inputs = " --images ".join([quoted(pseudo), *tars])
    inputs += f" --cache {quoted(folder / 'targets')} {jobs} --log-every 50"
    runs = {"2 segment": folder / "segment"}
    trained(runs["2 segment"], "segment", inputs, f"--steps {arguments.steps} {arguments.segment}")
    for threshold in ("dynamic", "fixed"):
        run = runs[f"3 correct, {threshold} threshold"] = folder / threshold
        options = f"--steps {arguments.correct} {CORRECT} --threshold {threshold}"
        trained(run, "correct", f"{inputs} --from {quoted(folder / 'segment')}", options)
    further = runs["2 segment, as many updates more"] = folder / "further"
    options = f"--steps {arguments.correct} {arguments.segment} {FURTHER}"
    trained(further, "segment", f"{inputs} --init {quoted(folder / 'segment')}", options)

    rows = [
        (name, f"{max(line['seconds'] for line in logged(run)) / 60:.1f}", labels_at_the_end(run) if "correct" in name else "")
        for name, run in runs.items()
    ]
    text = (
        f"{made_by(about)} ({about['machine']['cpus']} cores). Options of phase 2: `{arguments.segment} --steps {arguments.steps}`; "
        f"of phase 3: `{CORRECT} --steps {arguments.correct}`. Percent."
    )
    columns = ("run", "minutes", "teacher's masks an image at the end, small / medium / large")
    lines = ["# SOHES' phases on a CPU", "", text, "", *table(columns, rows)]
    for name in SETS:
        lines += evaluated(name, runs, arguments.limit, folder, jobs)
    publish(lines, arguments.markdown)


def evaluated(name: str, runs: dict[str, Path], limit: int, folder: Path, jobs: str) -> list[str]:
    """The table of one set of photographs."""
    truth = truth_file(name)
    images = first_images(truth, limit, folder)
    files = {"1 explore": folder / f"{name}-explored-{limit}.json"}
    explore(files["1 explore"], images, jobs)
    for run, made in runs.items():
        files[run] = folder / f"{name}-{made.name}-{limit}.json"
        stage(files[run], f"ovs-predict --checkpoint {quoted(made)} --device cpu -q {jobs} {images} -o {quoted(files[run])}")
    # Differences are to the first file.
    names = sorted(files, key=lambda one: one == "1 explore")
    masks = [files[one] for one in names]
    found = scores(truth, masks, *per_annotator(name))
    # Only one set has parts and wholes.
    forests = scores(truth, masks, metric="hierarchy")["files"] if name == "ccp_parts" else None
    rows = {}
    for k, one in enumerate(names):
        recall, *others = METRICS
        metrics = found["files"][k]["metrics"]
        gain = metric_text(found["differences"][k - 1], recall, "+.1f") if k else ""
        rows[one] = [one, metric_text(found["files"][k], recall), *(percent(metrics[metric]) for metric in others), gain]
        rows[one] += [percent(forests[k]["metrics"]["f1"])] if forests else []
    columns = ["masks", *METRICS, "AR@1000 less phase 2's", *(["F1 of ancestor pairs"] if forests else [])]
    return section(f"{name}, {limit} photographs", columns, [rows[one] for one in sorted(rows)])


if __name__ == "__main__":
    main()
