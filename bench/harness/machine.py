"""What a measurement was made on and by: processor, versions, commit and command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import ROOT


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def installed(package: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(*packages: str, **more: Any) -> dict[str, Any]:
    """The processor and how busy it is, and the versions of Python and of packages."""
    about = {"cpu": processor(), "cpus": os.cpu_count(), **more, "load_1min": os.getloadavg()[0], "python": platform.python_version()}
    return about | {package: installed(package) for package in packages}


def host(*packages: str) -> dict[str, Any]:
    """The kind of machine, its processor and cores, and the versions of Python and of packages."""
    about = {"machine": platform.machine(), "processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    return about | {package: installed(package) for package in packages}


def surroundings(*packages: str) -> dict[str, Any]:
    """``command``, ``commit``, ``date``, ``machine`` and ``versions``: what a result of a bench begins with."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    named = ("ovskit", "torch", "numpy", "numba", "scikit-image", "opencv-python-headless", *packages)
    return {
        "command": command_line(),
        "commit": commit or "unknown",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": processor(), "cpus": os.cpu_count(), "load_1min": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in named}},
    }


def command_line() -> str:
    """How this bench was called: ``python bench/NAME.py …``, without the folders of this machine."""
    words = [Path(sys.argv[0]).name, *(without_folders(word) for word in sys.argv[1:])]
    return "python bench/" + shlex.join(words)


def without_folders(word: str) -> str:
    """``word`` with every absolute path in it, also after a space, ``=``, ``,``, ``:`` or ``;``, made independent of the machine.

    A path in this checkout becomes relative to it. Any other keeps its last two parts, behind ``RUNS``, but no home and no
    more than the name if that is all there is below the root's folders.
    """
    return re.sub(r"(?<![^\s=,:;])/[^,;]*?(?=$|[,;]|\s[-/])", lambda found: _shortened(Path(os.path.normpath(found[0]))), word)


def _shortened(path: Path) -> str:
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    if path.is_relative_to(Path.home()):
        parts = path.relative_to(Path.home()).parts
    else:
        parts = path.parts[3:] or (() if path.parent.name in ("", "home", "Users") else path.parts[2:])
    return "/".join(["RUNS", *parts[-2:]])
