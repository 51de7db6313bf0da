"""bench/gpu.sh in its dry form: all three parts, in miniature, with a pretend card for the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from gpu import ROOT
from gpu.lines import Lines, ended, read_lines

SCRIPT = ROOT / "bench" / "gpu.sh"


def run(*words: str, out: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OUT": str(out), "PYTHON": sys.executable}
    return subprocess.run([SCRIPT, *words], env=environment, capture_output=True, text=True)


@pytest.mark.first
def test_dry(tmp_path: Path) -> None:
    done = run("--dry", out=tmp_path)
    lines = read_lines(tmp_path / "gpu.jsonl")
    assert not [(line.what, line.note) for line in lines if line.outcome == "failed"]
    assert done.returncode == 0, done.stderr
    parts = Counter((line.part, line.outcome) for line in lines)
    # Every test marked gpu that is neither heavy nor in need of a real card, every measurement, every step of learning.
    assert parts["correct", "passed"] > 50
    assert parts["fast", "measured"] > 30
    assert {line.what for line in lines if line.part == "learn"} == {
        "labels, scenes", "samples a second by batch size", "segment", "segment, kept", "segment, scenes", "correct", "correct, kept",
        "correct, scenes",
    }  # fmt: skip
    table = (tmp_path / "gpu.md").read_text()
    assert done.stdout == table
    assert all(f"| {line.what.replace('|', chr(92) + '|')} | {line.outcome} |" in table for line in lines)
    assert (tmp_path / "segmenter.safetensors").stat().st_size < 16 << 20
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_it_goes_on_from_what_it_left(tmp_path: Path) -> None:
    """The half-precision file of a run is what ``--from`` takes."""
    import torch
    from gpu.carry import halved, restored

    from ovskit.core.models.segmenter.checkpoint import save_segmenter
    from ovskit.core.models.segmenter.open import open_segmenter
    from ovskit.core.train.recipes.segment import SegmentSettings, new_segmenter

    segmenter = new_segmenter(SegmentSettings(size="tiny", kinds=4), weights=None, pretrained=True, seed=0)
    save_segmenter(tmp_path / "run", segmenter, {"size": 64})
    size = halved(tmp_path / "run", tmp_path / "half.safetensors")
    assert 0.45 < size * 2**20 / (tmp_path / "run" / "model.safetensors").stat().st_size < 0.55
    back = open_segmenter(restored(tmp_path / "half.safetensors", tmp_path / "back"))
    assert back.training == {"size": 64}
    assert json.dumps(back.segmenter.config.to_json()) == json.dumps(segmenter.config.to_json())
    for name, tensor in segmenter.state_dict().items():
        torch.testing.assert_close(back.segmenter.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "words", [["--minute", "3"], ["--from"], ["x"], ["--minutes", "x"], ["--minutes", "0"], ["--only", "fast,slow"], ["--from", "nowhere"]]
)
def test_bad_options(words: list[str], tmp_path: Path) -> None:
    done = run(*words, out=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("part", "code", "failed"), [("correct", 1, 0), ("fast", 0, 0), ("fast", 1, 1), ("learn", 137, 1), ("correct", 2, 1)]
)
def test_a_part_that_breaks_off_has_a_line(tmp_path: Path, part: str, code: int, failed: int) -> None:
    ended(Lines(tmp_path / "lines.jsonl"), part, code)
    assert [line.outcome for line in read_lines(tmp_path / "lines.jsonl")] == ["failed"] * failed


def test_a_file_to_go_on_from_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "begin").write_bytes(b"no weights")
    done = run("--dry", "--only", "learn", "--from", str(tmp_path / "begin"), out=tmp_path / "out")
    assert done.returncode == 1
    assert "| the part itself | failed |" in done.stdout


def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card")
    done = run(out=tmp_path)
    assert done.returncode == 1
    assert "torch finds no CUDA device; --dry" in done.stderr
