"""The ``ovs-*`` commands, as they are installed beside this Python, and what ``ovs-eval`` says of masks files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BIN = Path(os.environ.get("OVSKIT_BIN", Path(sys.executable).parent))
"""The folder of the commands."""


class CommandError(Exception):
    """A command failed; the text is the last line that it wrote to stderr."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def environment() -> dict[str, str]:
    """The environment of a process that finds this checkout's commands before any others."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def run(*words: object, cwd: Path | None = None, extra: Mapping[str, str] | None = None) -> bytes:
    """The stdout of a command; ``extra`` are variables of its environment. Raises CommandError."""
    variables = {**environment(), **(extra or {})}
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, env=variables, cwd=cwd, check=False)
    said = done.stderr.decode("utf-8", "replace").strip()
    if said:
        print(said, file=sys.stderr, flush=True)
    if done.returncode:
        raise CommandError(done.returncode, said.splitlines()[-1] if said else f"{words[0]}: exit code {done.returncode}")
    return done.stdout


def pipe(*commands: str, cwd: Path | None = None) -> bytes:
    """The stdout of a pipe of commands, each a line for a shell. Raises CommandError if one of them fails."""
    return run("bash", "-o", "pipefail", "-c", " | ".join(commands), cwd=cwd)


def scores(truth: Path, files: Sequence[Path], *options: object, metric: str = "ar") -> dict[str, Any]:
    """What ``ovs-eval --json`` says of masks files.

    ``files`` has the metrics of each with 95 % intervals, ``differences`` those of the later ones to the first. A ground truth of
    bsds500 is one for each annotator.
    """
    words = ["ovs-eval", "-q", "--metric", metric, "--json", "--bootstrap", 1000, "--images", "listed", "--gt", truth]
    found: dict[str, Any] = json.loads(run(*words, *options, *files))
    return found if "files" in found else {"files": [found], "differences": []}


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines about optimizer steps in the log of ``ovs-train``."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "losses" in line]


def per_annotator(name: str) -> list[str]:
    """The options of ``ovs-eval`` with which recall on a set is taken."""
    return ["--per-annotator"] if name == "bsds500" else []
