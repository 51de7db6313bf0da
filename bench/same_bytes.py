"""Whether every command and every method writes the same bytes as before: a sum of what each of some two hundred runs writes.

    python bench/same_bytes.py SUMS.txt [--against OTHER.txt] [--only NAME,…] [--photographs 12] [--jobs 1] [--keep DIR]

Run it at the commit before, with that checkout's own Python, and at the commit after, on the same machine; ``--against`` prints what
differs, and then the status is 1. A line has a sum, the run's name and its command line, in the order of names. The sum is the SHA-256 of
the one thing that the run writes, a file or stdout, or of the list of such sums (as sha256sum prints it) where it writes several. A run
that does not end with status 0 has this and the last line of its stderr at the end of its line, so that messages count. What else is
said on stderr does not. ``--only`` takes names and groups (``cluster``, ``refine/crf``) and runs what they read besides; ``help``, the
text of --help, is run only if it is named there. The runs are in bench/same_bytes_cases.py, what they read in
bench/same_bytes_inputs.py; ``--keep`` moves all of it to DIR afterwards, to look at what differs.

What no sum may depend on, and why none does:

- Paths. All runs are in one folder, always the same (``--folder``, by default one among the temporary files), since streams name the
  photographs' root; on the command line paths are relative to it. Another run of this file waits until the folder is free.
- Time, and the machine's other work. Of a run of ovs-train only model, descriptions and log count, the log without ``seconds``,
  ``samples_per_second`` and ``waiting``; checkpoints hold the time, and caches are nobody's output.
- Threads: one (OMP_NUM_THREADS, -j 1, except where a run is about -j), whatever the machine has; the device is the CPU.
- The environment: no OVS_ settings but a run's own, 100 columns, no colours, empty caches of models, no network.
- Versions and command lines in files: --no-pg, but for the runs called ``provenance``, which differ where the version does.

Sums do depend on the processor and on the versions of torch, Pillow and others: only those of one machine can be compared.
Commands are forked from a process that has imported torch already (tests/cli/fork_server.py), which saves most of the time.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from same_bytes_cases import CASES, OPTIONS
from same_bytes_inputs import write_inputs

from tests.cli.fork_server import ForkServer

BIN = Path(sys.executable).parent
LIMIT = 900  # seconds of one command; the first ones compile kernels
OF_TRAINING = ("model.safetensors", "config.json", "training.json", "log.jsonl")
OF_TIME = ("seconds", "samples_per_second", "waiting")
NOTHING = "-" * 64
MARK = ".same-bytes"


@dataclass(frozen=True)
class Case:
    """One run: a pipe of commands as lists of words, as it is printed, and the runs that it needs."""

    name: str
    stages: tuple[tuple[str, ...], ...]
    shown: str
    needs: frozenset[str]


def all_cases() -> dict[str, Case]:
    """Every run of the table, in its order."""
    found: dict[str, Case] = {}
    names = [f"{group}/{name}" for group, cases in CASES.items() for name in cases]
    for group, cases in CASES.items():
        for name, words in cases.items():
            own = f"{group}/{name}"
            line = words if re.match(r"(ovs-|OVS_|cat |head )", words) else f"ovs-{group} {words}"
            stages = tuple(tuple(_with_options(shlex.split(stage.replace("@", own)), own)) for stage in line.split(" | "))
            needs = {other for other in names if other != own and re.search(rf"(?<![\w/-]){re.escape(other)}(?![\w-])", line)}
            found[own] = Case(own, stages, " | ".join(map(shlex.join, stages)), frozenset(needs))
    return found


def _with_options(words: list[str], name: str) -> list[str]:
    """What goes for all runs comes before the run's own words, which may say otherwise."""
    at = next(k for k, word in enumerate(words) if "=" not in word)  # settings of the environment are before the command
    tool = words[at]
    if tool not in OPTIONS or name.startswith("help/") or words[at + 1 :] == ["--list-models"]:
        return words
    head = at + (2 if tool == "ovs-train" else 1)
    common = [word for word in OPTIONS[tool].split() if word != "--no-pg" or not name.endswith("/provenance")]
    return [*words[:head], *common, *words[head:]]


def chosen_of(cases: dict[str, Case], only: str | None) -> tuple[set[str], set[str]]:
    """The runs whose sums are wanted, and these with all that they need."""
    if only is None:
        wanted = {name for name in cases if not name.startswith("help/")}
    else:
        wanted = set()
        for text in only.split(","):
            found = {name for name in cases if text in (name, name.split("/")[0])}
            if not found:
                sys.exit(f"--only {text}: no run or group has this name; groups are {', '.join(CASES)}")
            wanted |= found
    needed, left = set(wanted), list(wanted)
    while left:
        for name in cases[left.pop()].needs - needed:
            needed.add(name)
            left.append(name)
    return wanted, needed


def environment(folder: Path) -> dict[str, str]:
    """A plain one; models that a user happens to have are out of sight."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OVS_", "OMP_", "MKL_", "PYTHON", "XDG_DATA")) and k != "FORCE_COLOR"}
    fixed = {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
    homes = {name: str(folder / "no-models") for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME")}
    return {**kept, **fixed, **homes, "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}"}


def run(case: Case, folder: Path, servers: SimpleQueue[ForkServer], env: dict[str, str]) -> tuple[str, float]:
    """The line of one run, and its seconds."""
    (folder / case.name).parent.mkdir(exist_ok=True)
    begun, data, status, said = time.monotonic(), b"", 0, b""
    server = servers.get()
    try:
        for stage in case.stages:
            words, given = list(stage), dict(env)
            while "=" in words[0]:
                key, _, value = words.pop(0).partition("=")
                given[key] = value
            if words[0].startswith("ovs-"):
                done = server.run([str(BIN / words[0]), *words[1:]], input=data, env=given, cwd=folder, timeout=LIMIT)
            else:
                done = subprocess.run(words, input=data, capture_output=True, env=given, cwd=folder, timeout=LIMIT, check=False)
            data, status, said = done.stdout, done.returncode, done.stderr
            if status not in (0, 3):
                break
    finally:
        servers.put(server)
    fields = [sum_of(case, folder, data), case.name, case.shown]
    if status:
        last = (said.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        fields.append(f"exit {status}: {last}")
    return "\t".join(fields), time.monotonic() - begun


def sum_of(case: Case, folder: Path, stdout: bytes) -> str:
    """The sum of all that a run has written."""
    parent, own = (folder / case.name).parent, (folder / case.name).name
    paths = [path for path in parent.rglob("*") if path.is_file() and re.match(rf"{re.escape(own)}[./]", str(path.relative_to(parent)))]
    if case.name.startswith("train/"):
        paths = [path for path in paths if path.name in OF_TRAINING]
    sums = [(hashlib.sha256(_bytes_of(path)).hexdigest(), str(path.relative_to(folder))) for path in sorted(paths)]
    if stdout:
        sums.append((hashlib.sha256(stdout).hexdigest(), "-"))
    if len(sums) == 1:
        return sums[0][0]
    listed = "".join(f"{one}  {name}\n" for one, name in sums)
    return hashlib.sha256(listed.encode()).hexdigest() if listed else NOTHING


def _bytes_of(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name != "log.jsonl":
        return data
    lines = [json.loads(line) for line in data.splitlines()]
    return "".join(json.dumps({k: v for k, v in line.items() if k not in OF_TIME}) + "\n" for line in lines).encode()


def run_all(cases: dict[str, Case], needed: set[str], folder: Path, jobs: int) -> dict[str, str]:
    """The lines of the runs that are ``needed``, by name; so many at a time, none before what it reads."""
    env = environment(folder)
    servers: SimpleQueue[ForkServer] = SimpleQueue()
    opened = [ForkServer(env) for _ in range(jobs)]
    for server in opened:
        servers.put(server)
    lines: dict[str, str] = {}
    left = [name for name in cases if name in needed]
    running: dict[Future[tuple[str, float]], str] = {}
    try:
        with ThreadPoolExecutor(jobs) as pool:
            while left or running:
                ready = [name for name in left if cases[name].needs <= lines.keys()][: jobs - len(running)]
                for name in ready:
                    left.remove(name)
                    running[pool.submit(run, cases[name], folder, servers, env)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    lines[name], seconds = future.result()
                    end = lines[name].split("\t")[3:]
                    print(f"{len(lines)}/{len(needed)} {name} {seconds:.1f} s", *end, file=sys.stderr, flush=True)
    finally:
        for server in opened:
            server.close()
    return lines


def differences(before: Path, after: Path, wanted: set[str] | None) -> list[str]:
    """What of the lines of two files is not the same: a line for each run and field; of the runs ``wanted`` only, if these are given."""
    tables = []
    for path in (before, after):
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        tables.append({row[1]: [*row, "exit 0"][:4] for row in rows if wanted is None or row[1] in wanted})
    found = []
    for name in sorted(tables[0].keys() | tables[1].keys()):
        old, new = (table.get(name) for table in tables)
        if old is None or new is None:
            found.append(f"{name}: only in {after if old is None else before}")
            continue
        parts = zip(("bytes", "name", "command", "end"), old, new, strict=True)
        found += [f"{name}: {what}\n  - {one}\n  + {other}" for what, one, other in parts if one != other]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sums", type=Path, help="where to write the sums")
    parser.add_argument("--against", type=Path, help="sums of before")
    parser.add_argument("--only", help="names of runs or groups, with commas")
    parser.add_argument("--photographs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ovskit-same-bytes")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.keep is not None and arguments.keep.exists():
        sys.exit(f"--keep {arguments.keep}: it is there already")
    cases = all_cases()
    wanted, needed = chosen_of(cases, arguments.only)
    folder, begun = arguments.folder.absolute(), time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists() and not (folder / MARK).exists():
            sys.exit(f"--folder {folder}: it is there, and not of this file: it would be deleted")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / MARK).touch()
        write_inputs(folder, arguments.photographs)
        lines = run_all(cases, needed, folder, arguments.jobs)
        if arguments.keep is None:
            shutil.rmtree(folder)
        else:
            shutil.move(folder, arguments.keep)
    arguments.sums.write_text("".join(f"{lines[name]}\n" for name in sorted(wanted)))
    print(f"{len(wanted)} runs in {(time.monotonic() - begun) / 60:.1f} minutes", file=sys.stderr)
    if arguments.against is not None:
        found = differences(arguments.against, arguments.sums, wanted if arguments.only else None)
        print(*(found or [f"the same as {arguments.against}"]), sep="\n")
        sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
