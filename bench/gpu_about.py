"""What bench/gpu.sh runs on: the card, Python, and the packages, of which it says at once what is missing and what that costs.

    python bench/gpu_about.py --lines LINES.jsonl [--dry]

Ends with 1 if nothing can be done at all: no torch, or no card and not ``--dry``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

from gpu_lines import Line, Lines, Value

PART = "about"
# Package and module, and what cannot be done without it.
NEEDED = {
    "torch": ("torch", "everything"),
    "numpy": ("numpy", "everything"),
    "numba": ("numba", "everything but the networks' speed"),
    "orjson": ("orjson", "every command"),
    "typer": ("typer", "every command"),
    "rich": ("rich", "every command"),
    "opencv-python-headless": ("cv2", "every command"),
    "pillow": ("PIL", "every command"),
    "safetensors": ("safetensors", "the built-in network, and training"),
    "transformers": ("transformers", "the segmenter"),
    "accelerate": ("accelerate", "training"),
    "scipy": ("scipy", "training a segmenter"),
    "timm": ("timm", "vision transformers"),
    "pycocotools": ("pycocotools", "ovs-eval, and reading masks of other tools"),
    "pytest": ("pytest", "the tests"),
    "hypothesis": ("hypothesis", "nothing: tests of a GPU do without"),
    "isal": ("isal", "nothing: zlib takes its place, slower"),
    "faiss-cpu": ("faiss", "clusters by faiss"),
    "open_clip_torch": ("open_clip", "CLIP models"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    lines = Lines(arguments.lines)
    missing = {name: cost for name, (module, cost) in NEEDED.items() if importlib.util.find_spec(module) is None}
    for name, cost in missing.items():
        print(f"gpu.sh: {name} is missing; not to be had without it: {cost}", file=sys.stderr)
        lines.add(Line(PART, name, "skipped", note=f"missing; not to be had without it: {cost}"))
    if "torch" in missing:
        sys.exit("gpu.sh: without torch there is nothing to see")
    values: dict[str, Value] = {"python": platform.python_version()}
    values |= {name: version(name) for name in ("torch", "transformers", "timm", "numba", "accelerate") if name not in missing}
    lines.add(Line(PART, "versions", "measured", values))
    import torch

    if not torch.cuda.is_available() and not arguments.dry:
        sys.exit("gpu.sh: torch finds no CUDA device; --dry does all of it in miniature on the CPU")


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


if __name__ == "__main__":
    main()
