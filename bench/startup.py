"""How long a command takes before it does anything: ``--help``, and a usage error found after the imports it needs.

Wall time of whole processes, least and median of several; files are in the page cache after the first run, which is not counted.
"""

from __future__ import annotations

import platform
import subprocess
import sys

from harness.arguments import bench_parser
from harness.commands import BIN
from harness.measure import timed
from harness.report import show, write_json

COMMANDS = (
    ("python -c pass", [sys.executable, "-c", "pass"]),
    ("ovs-extract --help", [BIN / "ovs-extract", "--help"]),
    ("ovs-cluster --help", [BIN / "ovs-cluster", "--help"]),
    ("ovs-show --help", [BIN / "ovs-show", "--help"]),
    ("ovs-cluster --no-local on empty input", [BIN / "ovs-cluster", "--no-local", "/dev/null"]),
    ("import torch", [sys.executable, "-c", "import torch"]),
)


def main() -> None:
    arguments = bench_parser(__doc__, repeat=9, json=True).parse_args()
    results = {}
    for name, words in COMMANDS:
        timing = timed(lambda words=words: silent(words), arguments.repeat, warm=1)
        results[name] = {"least_s": timing.least, "median_s": timing.median}
    rows = [(name, *(f"{value:.3f}" for value in row.values())) for name, row in results.items()]
    show("start-up, seconds", ("command", "least", "median"), rows)
    write_json(arguments.json, {"machine": platform.platform(), "python": platform.python_version(), **results})


def silent(words: list[object]) -> None:
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
