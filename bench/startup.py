"""How long a command takes before it does anything: ``--help``, and a usage error found after the imports it needs.

Wall time of whole processes, least and median of several; files are in the page cache after the first run, which is not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

BIN = Path(sys.executable).parent
COMMANDS = (
    ("python -c pass", [sys.executable, "-c", "pass"]),
    ("ovs-extract --help", [BIN / "ovs-extract", "--help"]),
    ("ovs-cluster --help", [BIN / "ovs-cluster", "--help"]),
    ("ovs-show --help", [BIN / "ovs-show", "--help"]),
    ("ovs-cluster --no-local on empty input", [BIN / "ovs-cluster", "--no-local", "/dev/null"]),
    ("import torch", [sys.executable, "-c", "import torch"]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(title="start-up, seconds")
    for column in ("command", "least", "median"):
        table.add_column(column, justify="left" if column == "command" else "right")
    results = {}
    for name, words in COMMANDS:
        times = []
        for _ in range(arguments.repeat + 1):
            begin = time.perf_counter()
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            times.append(time.perf_counter() - begin)
        results[name] = {"least_s": min(times[1:]), "median_s": statistics.median(times[1:])}
        table.add_row(name, *(f"{value:.3f}" for value in results[name].values()))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": platform.platform(), "python": platform.python_version(), **results}, indent=1))


if __name__ == "__main__":
    main()
