"""How good masks are, by ovs-eval: what bench/gpu_pack.py and bench/gpu_learn.py ask of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METRICS = ("AR@10", "AR@1000", "AR_S", "AR_M", "AR_L", "AP")


def scores(truth: Path, files: Sequence[Path], name: str) -> dict[str, Any]:
    """What ``ovs-eval --json`` says of masks files: AR with 95 % intervals and, of all after the first, differences to the first.

    ``name`` is the set's: bsds500 is scored against each annotator by itself.
    """
    words = ["ovs-eval", "-q", "--metric", "ar", "--json", "--bootstrap", "1000", "--images", "listed", "--gt", truth]
    words += [*(["--per-annotator"] if name == "bsds500" else []), *files]
    found: dict[str, Any] = json.loads(subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE).stdout)
    return found


def percent(value: float | None) -> str:
    """A share as text, in percent."""
    return "–" if value is None else f"{100 * value:.1f}"


def span(ends: Sequence[float] | None) -> str:
    """An interval of shares as text, in percent."""
    return "" if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
