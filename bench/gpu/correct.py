"""Whether what is computed on a card is right: every test marked ``gpu``, a process for each of their files, a line for each test.

    python -m gpu.correct --lines LINES.jsonl [--seconds 150] [--jobs N] [--pretend] [--together] [--slow] [FILE…]

A card's context that one test has poisoned takes no other file along, and a file that hangs is ended. What a file cannot import is
named. Several files run side by side where there are cores for it: a process takes longer to start than most of its tests. Nothing
stops it; the exit status is 1 if anything failed. ``--pretend`` takes the card that is none (tests/pretend_card.py), and leaves out
what a CPU needs long for; ``--together`` has all files in one process, since nothing can be poisoned there. ``--slow`` adds what takes
minutes. In the tests' own processes this file is pytest's plugin.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu import ROOT
from gpu.lines import Line, Lines, Value, read_lines

PART = "correct"
# What must be known first; then the rest by name.
ORDER = ("models", "refine", "cluster", "predict", "runtime", "train", "cli")
MOST = 90.0  # seconds of a file
_NOTE = 300
_MISSING = "there is no module"
_LEAST = 5.0  # seconds that are worth beginning for
# For the plugin: where lines go, and a folder for what it tells this process, the name of the test under way and that it has said anything.
_LINES, _OWN = "OVSKIT_GPU_LINES", "OVSKIT_GPU_OWN"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150.0, help="for all files together [150]")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(4, cores // 4))
    parser.add_argument("--jobs", type=int, default=jobs, metavar="N", help=f"files side by side [one for four cores, at most 4: {jobs}]")
    parser.add_argument("--pretend", action="store_true", help="on the card that is none")
    parser.add_argument("--together", action="store_true", help="all files in one process")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes")
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="files of tests [all that have one marked gpu]")
    arguments = parser.parse_args()
    lines = Lines(arguments.lines)
    begun = time.monotonic()
    before = len(read_lines(arguments.lines))
    chosen = "gpu" + ("" if arguments.slow else " and not slow") + (" and not heavy" if arguments.pretend else "")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        environment = _environment(Path(scratch), arguments.lines, max(1, cores // max(1, arguments.jobs)), pretend=arguments.pretend)

        def run(number: int, files: Sequence[Path]) -> None:
            left = arguments.seconds - (time.monotonic() - begun)
            if left < _LEAST:
                lines.add(Line(PART, _title(*files), "skipped", note=f"no time left of {arguments.seconds:.0f} s"))
                return
            own = Path(scratch) / str(number)
            own.mkdir()
            most = left if arguments.slow or arguments.together else min(MOST, left)
            _run(files, chosen, {**environment, _OWN: str(own)}, most, lines)

        found = arguments.files or _files()
        groups = [found] if arguments.together else [[file] for file in found]
        for done in [pool.submit(run, number, files) for number, files in enumerate(groups)]:
            done.result()
    added = read_lines(arguments.lines)[before:]
    print(f"correct: {', '.join(f'{sum(line.outcome == one for line in added)} {one}' for one in ('passed', 'failed', 'skipped'))}")
    return int(any(line.outcome == "failed" for line in added))


def _files() -> list[Path]:
    """The files that have tests marked gpu, in the order that they are to run."""
    found = (ROOT / "tests").rglob("test_*_on_a_gpu.py")

    def place(path: Path) -> tuple[int, str]:
        room = path.relative_to(ROOT / "tests").parts[0]
        return (ORDER.index(room) if room in ORDER else len(ORDER), str(path))

    return sorted(found, key=place)


def _title(file: Path, *others: Path) -> str:
    """``tests/models/test_extraction_on_a_gpu.py`` as ``models: extraction``."""
    if others:
        return f"{1 + len(others)} files"
    stem = file.stem.removeprefix("test_").removesuffix("_on_a_gpu").replace("_", " ")
    return f"{file.resolve().parent.name}: {stem}"


def _environment(scratch: Path, lines: Path, threads: int, *, pretend: bool) -> dict[str, str]:
    """That of the tests' processes, in which ovskit can be imported; ``threads`` for each of them, unless the environment says so."""
    paths = [str(ROOT), str(ROOT / "bench")]
    if importlib.util.find_spec("ovskit") is None or importlib.util.find_spec("ovskit.core") is None:
        place = scratch / "path" / "ovskit"
        place.mkdir(parents=True)
        for name in ("core", "cli"):
            (place / name).symlink_to(ROOT / name)
        paths.append(str(place.parent))
    paths += [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    own = {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1", _LINES: str(lines.resolve())}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OVS_")}
    kept.setdefault("OMP_NUM_THREADS", str(threads))
    return {**kept, **own, "OVSKIT_PRETEND_CARD": "1" if pretend else "0"}


def _run(files: Sequence[Path], chosen: str, environment: Mapping[str, str], limit: float, lines: Lines) -> None:
    """The tests of some files, in a process of their own; a line where that did not end as it should."""
    command = [sys.executable, "-m", "pytest", "-q", "-rN", "-p", "no:cacheprovider", "-p", "gpu.correct", "-m", chosen]
    command += map(str, files)
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=limit)
        ended = None
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        ended = f"ended after {limit:.0f} s"
    seconds = time.monotonic() - begun
    now, said = Path(environment[_OWN]) / "now", Path(environment[_OWN]) / "said"
    if ended is None and (process.returncode in (0, 5) or (said.exists() and process.returncode in (1, 2))):  # 5: none; 2: not imported
        return
    if ended is None:
        reason = _reason(output)
        ended = reason if reason.startswith(_MISSING) else f"exit status {process.returncode}: {reason}"
    what = now.read_text(encoding="utf-8") if now.exists() else _title(*files)
    lines.add(Line(PART, what, "failed", seconds=seconds, note=_cut(ended)))


def _reason(output: str) -> str:
    """What of a process's output says why it ended: a module that is missing, or its last words."""
    missing = re.search(r"No module named '?([\w.]+)", output)
    if missing:
        return f"{_MISSING} {missing[1]}"
    words = [line.strip() for line in output.splitlines() if line.strip()]
    fatal = re.findall(r"Fatal [^\n]+", output)
    errors = [line for line in words if re.match(r"(E  |\w*Error)", line)]
    return _cut((fatal[:1] or errors or words or ["said nothing"])[-1])


def _cut(text: str) -> str:
    return " ".join(text.split())[:_NOTE]


# --- pytest's plugin, in the process of a file's tests ---


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    """Say which test is under way, for the case that it takes the process with it."""
    (Path(os.environ[_OWN]) / "now").write_text(_named(nodeid), encoding="utf-8")


def pytest_runtest_logreport(report: Any) -> None:
    """A line for every test that has passed, failed or been skipped."""
    if report.when != "call" and report.passed:
        if report.when == "teardown":
            (Path(os.environ[_OWN]) / "now").unlink(missing_ok=True)
        return
    note = ""
    if report.skipped:
        note = str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "expected to fail"
    elif report.failed:
        note = _failure(report)
    what = _named(report.nodeid) if report.when != "teardown" else f"{_named(report.nodeid)} (afterwards)"
    _say(Line(PART, what, report.outcome, _values(report.user_properties), report.duration, _cut(note)))


def pytest_collectreport(report: Any) -> None:
    """A line for a file that cannot be imported."""
    if report.failed:
        _say(Line(PART, _title(Path(report.nodeid)), "failed", note=_reason(str(report.longrepr))))
    elif report.skipped and isinstance(report.longrepr, tuple):
        _say(Line(PART, _title(Path(report.nodeid)), "skipped", note=_cut(str(report.longrepr[2]))))


def _say(line: Line) -> None:
    Lines(Path(os.environ[_LINES])).add(line)
    (Path(os.environ[_OWN]) / "said").touch()


def _named(nodeid: str) -> str:
    """``tests/models/test_x_on_a_gpu.py::test_a_vit_gives[tiny]`` as ``models: a vit gives (tiny)``."""
    file, _, rest = nodeid.partition("::")
    words, _, which = rest.rpartition("::")[2].partition("[")
    shown = f" ({which.removesuffix(']')})" if which else ""
    return f"{Path(file).parent.name}: {words.removeprefix('test_').replace('_', ' ')}{shown}"


def _failure(report: Any) -> str:
    """The first line of what a test failed by, with the error's name."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr) if crash is None else str(crash.message)


def _values(properties: Sequence[tuple[str, Any]]) -> dict[str, Value]:
    return {name: value if isinstance(value, float | int | str) else str(value) for name, value in properties}


if __name__ == "__main__":
    sys.exit(main())
