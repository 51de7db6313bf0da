"""SOHES' three phases on the pool of photographs, small enough for a CPU, scored after each phase on photographs that annotators outlined.

    python bench/phases.py --folder RUNS [--share 3] [--steps 3000] [--correct 600] [--limit 50] [--markdown FILE]
                           [--segment "OPTIONS"] [--jobs 1]

1 explore: ``ovs-extract --size 512 | ovs-cluster | ovs-refine | ovs-hier`` on one in ``--share`` photographs of the pool.
2 segment: ``ovs-train segment`` on these masks. 3 correct: ``ovs-train correct`` from there, once with the dynamic threshold, once with
a fixed one (SOHES' Table 3), and, so that more training is not taken for correction, as many further updates of ``ovs-train segment``.

The score of phase 1 is that of its own commands with their defaults on the photographs scored; that of the others is the segmenter's,
which has seen none of them. Intervals are 95 % by bootstrap over photographs; differences are paired, to phase 2. What is in the
folder already is not made again, so a bench that was stopped goes on where it was. Photographs come from ``$OVSKIT_TEST_DATA``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quality import DATA, SETS, command_line, surroundings

SEGMENT = (
    "--optimizer adamw --lr 2e-3 --clip 10 --warmup 100 --batch 8 --set size=tiny --set side=192 "
    "--set smallest_scale=0.5 --set largest_scale=1.5 --set paste=0 --set backbone_rate=1"
)
CORRECT = "--optimizer adamw --lr 5e-4 --clip 10 --warmup 50 --batch 8 --set momentum=0.99"
FURTHER = "--lr 5e-4 --warmup 50"
METRICS = ("AR@1000", "AR_S", "AR_M", "AR_L", "AP")


def stage(path: Path, *commands: str) -> float:
    """Run a pipe whose last command makes ``path``, unless it is there; minutes."""
    begun = time.monotonic()
    if not path.exists():
        print(" | ".join(commands), file=sys.stderr, flush=True)
        subprocess.run(["bash", "-o", "pipefail", "-c", " | ".join(commands)], check=True, stdin=subprocess.DEVNULL)
    return (time.monotonic() - begun) / 60


def trained(folder: Path, recipe: str, inputs: str, options: str) -> None:
    """A finished run: ``ovs-train`` goes on where it was, and has nothing to do if it is done."""
    made = folder / "model.safetensors"
    stage(made, f"ovs-train {recipe} {inputs} -o {quoted(folder)} --resume --device cpu -q {options}")


def minutes_of(folder: Path) -> float:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return max(line["seconds"] for line in lines if "losses" in line) / 60  # of all pieces up to there


def labels_at_the_end(folder: Path) -> str:
    """The teacher's masks an image by size, over the last tenth of the run."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = [line["losses"] for line in lines if "losses" in line][-max(1, len(lines) // 10) :]
    return " / ".join(f"{sum(one[f'teacher {size}'] for one in last) / len(last):.1f}" for size in ("small", "medium", "large"))


def quoted(path: object) -> str:
    return shlex.quote(str(path))


def scores(truth: Path, files: list[Path], metric: str, *, per_annotator: bool) -> dict[str, Any]:
    words = ["ovs-eval", "-q", "--gt", truth, "--metric", metric, "--json", "--bootstrap", "1000", "--images", "listed"]
    words += [*(["--per-annotator"] if per_annotator else []), *files]
    found: dict[str, Any] = json.loads(subprocess.run([str(w) for w in words], check=True, stdout=subprocess.PIPE).stdout)
    return found


def first(truth: Path, limit: int, folder: Path) -> Path:
    """A ground truth's first ``limit`` images, as a list of images for ``--images``."""
    data = json.loads(truth.read_text())
    path = folder / f"{truth.stem}-{limit}.json"
    path.write_text(json.dumps({"images": data["images"][:limit], "annotations": [], "categories": []}))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--share", type=int, default=3, help="one in so many photographs of the pool")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--correct", type=int, default=600)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--segment", default=SEGMENT)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    folder, jobs = arguments.folder, f"-j {arguments.jobs}"
    folder.mkdir(parents=True, exist_ok=True)
    about = surroundings()

    pool = " ".join(quoted(path) for path in sorted((DATA / "pool").glob("*.tar")))
    pseudo = folder / "pseudo.json"
    stage(
        pseudo, f"ovs-extract --size 512 --shard 0/{arguments.share} -q {jobs} {pool}", f"ovs-cluster -q {jobs}",
        f"ovs-refine -q {jobs}", f"ovs-hier -o {quoted(pseudo)}",
    )  # fmt: skip
    inputs = quoted(pseudo) + "".join(f" --images {quoted(path)}" for path in sorted((DATA / "pool").glob("*.tar")))
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

    lines = [
        "# SOHES' phases on a CPU",
        "",
        f"Made by `{command_line()}` at commit {about['commit']}, {about['date']}, on {about['machine']['cpu']} "
        f"({about['machine']['cpus']} cores). Options of phase 2: `{arguments.segment} --steps {arguments.steps}`; of phase 3: "
        f"`{CORRECT} --steps {arguments.correct}`. Percent.",
        "",
        "| run | minutes | teacher's masks an image at the end, small / medium / large |",
        "|---|---|---|",
    ]
    for name, run in runs.items():
        teacher = labels_at_the_end(run) if "correct" in name else ""
        lines.append(f"| {name} | {minutes_of(run):.1f} | {teacher} |")
    for name, file in SETS.items():
        lines += evaluated(name, DATA / name / file, runs, arguments.limit, folder, jobs)
    text = "\n".join(lines) + "\n"
    if arguments.markdown:
        arguments.markdown.write_text(text)
    print(text, end="")


def evaluated(name: str, truth: Path, runs: dict[str, Path], limit: int, folder: Path, jobs: str) -> list[str]:
    """The table of one set of photographs."""
    images = f"--images {quoted(first(truth, limit, folder))} --root {quoted(truth.parent)}"
    explored = folder / f"{name}-explored-{limit}.json"
    stage(explored, f"ovs-extract -q {jobs} {images}", f"ovs-cluster -q {jobs}", f"ovs-refine -q {jobs}", f"ovs-hier -o {quoted(explored)}")
    files = {}
    for run, made in runs.items():
        files[run] = folder / f"{name}-{made.name}-{limit}.json"
        stage(files[run], f"ovs-predict --checkpoint {quoted(made)} --device cpu -q {jobs} {images} -o {quoted(files[run])}")
    files["1 explore"] = explored
    per_annotator = name == "bsds500"
    found = scores(truth, list(files.values()), "ar", per_annotator=per_annotator)
    # Of parts and wholes only one set knows.
    forests = scores(truth, list(files.values()), "hierarchy", per_annotator=False) if name == "ccp_parts" else None
    lines = [
        "",
        f"## {name}, {limit} photographs",
        "",
        "| masks | " + " | ".join(METRICS) + " | AR@1000 less phase 2's |" + (" F1 of ancestor pairs |" if forests else ""),
        "|---" * (len(METRICS) + (3 if forests else 2)) + "|",
    ]
    names = list(files)
    for k in sorted(range(len(names)), key=lambda k: names[k]):
        values, spans = found["files"][k]["metrics"], found["files"][k].get("intervals", {})
        cells = [percent(values[metric]) for metric in METRICS]
        cells[0] += f" {span(spans.get('AR@1000'))}"
        cells.append(difference(found, k))
        if forests:
            cells.append(percent(forests["files"][k]["metrics"]["f1"]))
        lines.append(f"| {names[k]} | " + " | ".join(cells) + " |")
    return lines


def difference(found: dict[str, Any], k: int) -> str:
    if not k:
        return ""
    one = found["differences"][k - 1]
    return f"{100 * one['metrics']['AR@1000']:+.1f} {span(one['intervals']['AR@1000'])}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def span(ends: list[float] | None) -> str:
    return "" if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


if __name__ == "__main__":
    main()
