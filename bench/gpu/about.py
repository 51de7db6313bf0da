"""What bench/gpu.sh runs on: Python and the packages, of which it says at once what is missing or too old, and what that costs.

    python -m gpu.about --lines LINES.jsonl [--dry]

Ends with 1 if nothing can be done at all: no torch, or no card and not ``--dry``.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.machine import installed

from gpu import ROOT
from gpu.lines import Line, Lines, Value

PART = "about"
# What cannot be done without a package; pyproject.toml says which ovskit asks for, and of what version.
COSTS = {
    "accelerate": "training",
    "faiss-cpu": "clusters by faiss",
    "huggingface_hub": "nothing: no weights are fetched",
    "isal": "nothing: zlib takes its place, slower",
    "numba": "all but the networks' speed",
    "open_clip_torch": "CLIP models",
    "pycocotools": "ovs-eval, and reading masks of other tools",
    "safetensors": "the built-in network, and training",
    "scipy": "training a segmenter",
    "timm": "vision transformers",
    "torchvision": "some networks of timm",
    "transformers": "the segmenter: learning, and its tests",
}
TESTS = ("pytest",)
_EVERYTHING = "all of it"


def wanting(requirements: Sequence[str], version: Callable[[str], str | None]) -> dict[str, str]:
    """What is wrong with the packages that are asked for, by name: that one is missing, or older than the least version.

    ``requirements`` are as pyproject.toml has them; ``version`` says which of a package is there, None for none.
    """
    found = {}
    for requirement in requirements:
        match = re.match(r"([\w.-]+)\s*(?:>=\s*([\d.]+))?", requirement)
        assert match is not None, requirement
        name, least = match[1], match[2]
        there = version(name)
        if there is None:
            found[name] = "missing"
        elif least is not None and _numbers(there) < _numbers(least):
            found[name] = f"{there} is there, {least} or newer is asked for"
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """1.10.2+cu130 as (1, 10, 2); what follows a letter is left out."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(each) for each in leading[0].split(".")) if leading else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    lines = Lines(arguments.lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    faults = wanting([*project["dependencies"], *TESTS], installed)
    tell(faults, lines)
    names = ("torch", "transformers", "timm", "numba", "accelerate")
    values: dict[str, Value] = {"python": platform.python_version()} | {name: installed(name) or "missing" for name in names}
    lines.add(Line(PART, "versions", "measured", values))
    if faults.get("torch") == "missing":
        sys.exit("gpu.sh: without torch there is nothing to see")
    import torch

    if not torch.cuda.is_available() and not arguments.dry:
        sys.exit("gpu.sh: torch finds no CUDA device; --dry does all of it in miniature on the CPU")


def tell(faults: Mapping[str, str], lines: Lines) -> None:
    """Say what is wrong, to whoever looks on and in the lines."""
    for name, fault in faults.items():
        note = f"{fault}; what may fail for it: {COSTS.get(name, _EVERYTHING)}"
        print(f"gpu.sh: {name}: {note}", file=sys.stderr)
        lines.add(Line(PART, name, "skipped", note=note))


if __name__ == "__main__":
    main()
