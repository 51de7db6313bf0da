"""The speed of ovskit on a GPU: a line for each measurement, the most valuable first, within a budget of seconds.

    python -m gpu.fast --lines LINES.jsonl [--dry] [--only NAME,…] [--seconds 150] [--device cuda]

Each measurement has a process of its own with a time limit, so that none can take the others with it, and writes its lines as soon
as it knows them (``bench/gpu/lines.py``, part "fast"). One for which the seconds left are too few is skipped, and its line says so.
``--dry`` does all in miniature on a CPU by the same code; its numbers are not measurements. Nothing is downloaded: networks other than
the built-in one have random weights, of which no time depends. Photographs come from ``$OVSKIT_TEST_DATA`` (default: ../shared/data
beside the checkout), or are generated. Prints the table of what it found.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gpu import environment
from gpu.lines import Line, Lines, read_lines, table

PART = "fast"
_NOTE = 300  # characters of an error


@dataclass(frozen=True)
class Job:
    """A measurement: ``function`` of ``module`` is given a ``work.Work``. It is not begun with less than ``least`` seconds left, and
    ended after ``limit``."""

    name: str
    module: str
    function: str
    least: float
    limit: float


JOBS = (  # the most valuable first; floors are taken from what the first one keeps
    Job("card", "gpu.card", "card", 10, 60),
    Job("keys", "gpu.keys", "keys", 12, 80),
    Job("pipe-builtin", "gpu.pipe", "pipe_builtin", 25, 80),
    Job("keys-compiled", "gpu.keys", "keys_compiled", 20, 80),
    Job("builtin", "gpu.keys", "builtin", 10, 50),
    Job("naming", "gpu.naming", "naming", 15, 60),
    Job("kmeans", "gpu.regions", "kmeans", 10, 40),
    Job("decoding", "gpu.pipe", "decoding", 12, 60),
    Job("pipe-keys", "gpu.pipe", "pipe_keys", 30, 100),
    Job("keys-otherwise", "gpu.keys", "keys_otherwise", 12, 60),
    Job("convcrf", "gpu.regions", "convcrf", 10, 30),
)


@dataclass(frozen=True)
class Limits:
    """Where jobs run and until when, by ``time.monotonic``."""

    device: str
    dry: bool
    folder: Path
    until: float


def supervise(jobs: Sequence[Job], lines: Lines, path: Path, limits: Limits) -> None:
    """Run jobs in a process of their own; add a line if it could not be begun, did not end in time, or did not end well."""
    name = ",".join(job.name for job in jobs)
    least, limit = (1.0 if limits.dry else sum(job.least for job in jobs)), sum(job.limit for job in jobs)
    left = max(0.0, limits.until - time.monotonic())
    if left < least:
        lines.add(Line(PART, name, "skipped", note=f"{left:.0f} s left, it wants {least:.0f}"))
        return
    limit = min(left, limit)
    words = [
        sys.executable,
        "-m",
        "gpu.fast",
        "--lines",
        str(path),
        "--child",
        name,
        "--device",
        limits.device,
        "--folder",
        str(limits.folder),
    ]
    words += ["--dry"] if limits.dry else []
    begun = time.monotonic()
    errors = limits.folder / "errors.txt"
    with open(errors, "wb") as said:
        # A session of its own: what it starts ends with it.
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, env=environment())
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    took = time.monotonic() - begun
    if code is None:
        lines.add(Line(PART, name, "failed", seconds=took, note=f"not done after {limit:.0f} s, and ended; what it knew by then is above"))
    elif code:
        last = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        lines.add(Line(PART, name, "failed", seconds=took, note=f"exit code {code}: {last[0][:_NOTE]}"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, if anything is left of them."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def child(wanted: Sequence[str], path: Path, device: str, folder: Path, dry: bool) -> None:
    """Jobs, in this process."""
    import torch

    from gpu.work import Work

    work = Work(PART, torch.device(device), dry, folder, Lines(path))
    for job in JOBS:
        if job.name in wanted:
            getattr(import_module(job.module), job.function)(work)


def names(text: str) -> list[str]:
    found = [name for name in text.split(",") if name]
    unknown = sorted(set(found) - {job.name for job in JOBS})
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(job.name for job in JOBS)}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument(
        "--only", type=names, default=[job.name for job in JOBS], metavar="NAME,…", help=", ".join(job.name for job in JOBS)
    )
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--device", help="default: cuda, or cpu with --dry")
    parser.add_argument("--child", type=names, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    device = given.device or ("cpu" if given.dry else "cuda")
    if given.child:
        child(given.child, given.lines, device, given.folder, given.dry)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    until, before = time.monotonic() + given.seconds, len(read_lines(given.lines))
    lines = Lines(given.lines)
    chosen = [job for job in JOBS if job.name in given.only]
    # Nothing in miniature can hang or spoil a card; a start costs as much as the measurement.
    groups = [chosen] if given.dry else [[job] for job in chosen]
    with tempfile.TemporaryDirectory(prefix="ovskit-gpu-") as folder:
        for jobs in groups:
            supervise(jobs, lines, given.lines, Limits(device, given.dry, Path(folder), until))
    print(table(read_lines(given.lines)[before:]), end="")


if __name__ == "__main__":
    main()
