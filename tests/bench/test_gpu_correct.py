"""bench/gpu/correct.py: a line for every test, whatever becomes of the process that it runs in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu import environment
from gpu.lines import read_lines

ALL_KINDS = """
import pytest
pytestmark = pytest.mark.gpu

def test_that_passes(record_property):
    record_property("error", 0.25)

@pytest.mark.parametrize("size", [8])
def test_that_fails(size):
    assert size == 9, "one is missing"

def test_that_is_skipped():
    pytest.skip("no card of that kind")

def test_of_a_fixture_that_fails(broken):
    pass

@pytest.fixture
def broken():
    raise ValueError("broken")

def test_without_a_marker_is_marked_here():
    pass
"""
DIES = "import os, pytest\n@pytest.mark.gpu\ndef test_first(): pass\n@pytest.mark.gpu\ndef test_that_dies(): os.abort()\n"
HANGS = "import time, pytest\n@pytest.mark.gpu\ndef test_that_hangs(): time.sleep(60)\n"
LACKS = "import pytest\nimport no_such_module_of_anybodys\n@pytest.mark.gpu\ndef test_one(): pass\n"


def run(folder: Path, texts: dict[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and the lines by what they are of."""
    files = []
    for name, text in texts.items():
        files.append(folder / f"test_{name}_on_a_gpu.py")
        files[-1].write_text(text)
    lines = folder / "lines.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "gpu.correct", "--lines", str(lines), "--pretend", *options, *map(str, files)],
        capture_output=True,
        timeout=120,
        check=False,
        env=environment(),
    )
    assert not done.stderr, done.stderr.decode()
    return done.returncode, {line.what.partition(": ")[2]: line for line in read_lines(lines)}


def test_every_outcome_has_its_line(tmp_path: Path) -> None:
    status, found = run(tmp_path, {"kinds": ALL_KINDS})
    assert status == 1
    assert {what: line.outcome for what, line in found.items()} == {
        "that passes": "passed",
        "that fails (8)": "failed",
        "that is skipped": "skipped",
        "of a fixture that fails": "failed",
        "without a marker is marked here": "passed",
    }
    assert found["that passes"].values == {"error": 0.25}
    assert found["that fails (8)"].note.startswith("AssertionError: one is missing")
    assert found["that is skipped"].note == "no card of that kind"
    assert "ValueError: broken" in found["of a fixture that fails"].note


def test_a_process_that_ends_badly_takes_no_other_file_along(tmp_path: Path) -> None:
    status, found = run(tmp_path, {"dies": DIES, "hangs": HANGS, "lacks": LACKS}, "--seconds", "8", "--jobs", "1")
    assert status == 1
    assert found["first"].outcome == "passed"
    assert found["that dies"].note.startswith("exit status -6: Fatal")
    assert found["that hangs"].note.startswith("ended after ")
    # The time was gone.
    assert (found["lacks"].outcome, found["lacks"].note) == ("skipped", "no time left of 8 s")


def test_files_side_by_side_have_all_their_lines(tmp_path: Path) -> None:
    kinds = {f"kinds{k}": ALL_KINDS.replace("test_that", f"test_{k}_that") for k in range(3)}
    status, found = run(tmp_path, {**kinds, "dies": DIES}, "--jobs", "4")
    assert status == 1
    assert sum("that passes" in what for what in found) == 3
    assert found["that dies"].outcome == "failed"


def test_a_module_that_is_missing_is_named(tmp_path: Path) -> None:
    status, found = run(tmp_path, {"lacks": LACKS})
    assert status == 1
    assert (found["lacks"].outcome, found["lacks"].note) == ("failed", "there is no module no_such_module_of_anybodys")


def test_all_is_well_without_failures(tmp_path: Path) -> None:
    assert run(tmp_path, {"well": HANGS.replace("60", "0")})[0] == 0
