"""The commands as bench/gpu_pack.py and bench/gpu/learn.py use them, and how good masks are by ovs-eval."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METRICS = ("AR@10", "AR@1000", "AR_S", "AR_M", "AR_L", "AP")


class ToolError(Exception):
    """A command failed; the text is the last thing that it said."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def run_tool(words: Sequence[object], environment: Mapping[str, str] | None = None) -> bytes:
    """Run a command, in this environment if one is given: its stdout. Raises ToolError."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    said = done.stderr.decode("utf-8", "replace").strip()
    if said:
        print(said, file=sys.stderr, flush=True)
    if done.returncode:
        raise ToolError(done.returncode, said.splitlines()[-1] if said else f"{words[0]}: exit code {done.returncode}")
    return done.stdout


def scores(truth: Path, files: Sequence[Path], name: str) -> dict[str, Any]:
    """What ``ovs-eval --json`` says of masks files: ``files``, AR with 95 % intervals of each, and ``differences`` of those after the first
    to the first.

    ``name`` is the set's: bsds500 is scored against each annotator by itself.
    """
    words = ["ovs-eval", "-q", "--metric", "ar", "--json", "--bootstrap", 1000, "--images", "listed", "--gt", truth]
    found: dict[str, Any] = json.loads(run_tool([*words, *(["--per-annotator"] if name == "bsds500" else []), *files]))
    return found if "files" in found else {"files": [found], "differences": []}


def percent(value: float | None) -> str:
    """A share as text, in percent."""
    return "–" if value is None else f"{100 * value:.1f}"


def span(ends: Sequence[float] | None) -> str:
    """An interval of shares as text, in percent."""
    return "" if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
