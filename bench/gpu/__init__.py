"""The parts of bench/gpu.sh. Each runs by itself too, from bench/: ``python -m gpu.fast``."""

from __future__ import annotations

import os

from harness import ROOT


def environment() -> dict[str, str]:
    """That of processes in which ``python -m gpu.…`` is found from anywhere."""
    paths = [str(ROOT / "bench"), *(each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
