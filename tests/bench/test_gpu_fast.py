"""bench/gpu/fast.py: the operations that it counts, how it keeps to its time, and how it reads a pipe."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from gpu.card import BACKENDS, attention_by
from gpu.fast import JOBS, Job, Limits, main, supervise
from gpu.flops import VitShape, floor_seconds, keys_flops
from gpu.lines import Lines, read_lines
from gpu.pipe import run
from gpu.work import FULL, Clock, Work
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ovskit.core.models.registry import load_backbone

CPU = torch.device("cpu")


def test_operations_are_those_that_torch_counts_on_the_real_path(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    network = timm.create_model(name, pretrained=False, num_classes=0)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone(f"timm:{name}", facet="key", weights=tmp_path / "weights.pth", device=CPU)
    for side in (64, 160):
        images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
        with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter:
            backbone.extract(images)
        assert keys_flops(VitShape(12, 192, 16), side).total == counter.get_total_flops()


def test_a_vit_b8_at_1024_pixels_has_a_floor_of_some_sixteen_milliseconds_at_700_teraflops() -> None:
    flops = keys_flops(VitShape(12, 768, 8), 1024)
    tokens = 128 * 128 + 1
    assert flops.attention == 11 * 4 * tokens**2 * 768
    assert flops.linear == pytest.approx(11 * 24 * tokens * 768**2, rel=0.01)
    assert 0.016 < floor_seconds(flops, 700e12) < 0.017
    assert floor_seconds(flops, 700e12, 350e12) == pytest.approx((flops.linear + 2 * flops.attention) / 700e12)


def test_a_job_without_time_is_skipped_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    supervise([JOBS[0]], Lines(path), path, Limits("cpu", False, tmp_path, time.monotonic() + JOBS[0].least - 2))
    (line,) = read_lines(path)
    assert (line.part, line.what, line.outcome) == ("fast", "card", "skipped")
    assert "it wants 10" in line.note


def test_a_job_that_hangs_is_ended_and_one_that_dies_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    limits = Limits("cpu", True, tmp_path, time.monotonic() + 100)
    supervise([Job("card", "gpu.card", "card", 0, 0.05)], Lines(path), path, limits)
    supervise([Job("no such", "", "", 0, 60)], Lines(path), path, limits)
    hung, dead = read_lines(path)
    assert hung.outcome == dead.outcome == "failed"
    assert "not done after 0 s" in hung.note
    assert "exit code 2" in dead.note
    assert "no such" in dead.note


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--lines", str(tmp_path / "l"), "--only", "card,cord"])
    assert "cord: choose from card, keys" in capsys.readouterr().err


def test_what_does_not_fit_is_a_finding_and_a_failure_does_not_stop(tmp_path: Path) -> None:
    work = Work("fast", CPU, True, tmp_path, Lines(tmp_path / "lines.jsonl"))
    with work.measuring("large") as values:
        values["batch"] = 16
        raise torch.OutOfMemoryError
    with work.measuring("broken"):
        raise ValueError("no\ngood")
    large, broken = read_lines(tmp_path / "lines.jsonl")
    assert (large.outcome, large.values) == ("measured", {"batch": 16, "memory": FULL})
    assert (broken.outcome, broken.note) == ("failed", "ValueError: no good")


def test_numbers_are_kept_for_later_processes(tmp_path: Path) -> None:
    first, second = (Work("fast", CPU, True, tmp_path, Lines(tmp_path / "lines")) for _ in range(2))
    assert second.known() == {}
    first.remember({"bf16": 1e12})
    first.remember({"fp16": 2e12})
    assert second.known() == {"bf16": 1e12, "fp16": 2e12}


def test_an_attention_that_is_not_there_is_named_and_no_error() -> None:
    q, k, v = torch.randn(3, 1, 1, 8, 8).unbind(0)
    said = attention_by(Clock(CPU), q, k, v, BACKENDS["efficient"])  # for GPUs only
    assert isinstance(said, str)
    assert said.startswith("no (")


SLOWLY = "import sys, time\nfor k in range(1, 9):\n    time.sleep(0.05)\n    sys.stdout.write(LINE)\n    sys.stdout.flush()"


def test_a_pipe_is_timed_image_by_image() -> None:
    masks = SLOWLY.replace("LINE", """f'{{"id":{k},"image_id": {k}}}\\n' * 2""")
    done = run([[sys.executable, "-c", masks], ["cat"]], 8, streams=False, gpu=False)
    assert [image for image, _ in done.arrivals] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert 0 < done.rate() < 20
    assert len(done.cpu) == len(done.peak_mib) == 2
    stream = SLOWLY.replace("LINE", "'x' * 1000")
    done = run([[sys.executable, "-c", stream]], 8, streams=True, gpu=False)
    assert done.output == b"x" * 8000
    assert done.arrivals[-1][0] == 8
    assert 0 < done.rate() < 20


def test_a_pipe_that_breaks_says_what_its_commands_said() -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('this is why')"]
    with pytest.raises(RuntimeError, match=r"exit codes \[1, 0\]: this is why"):
        run([fails, ["cat"]], 2, streams=False, gpu=False)
    with pytest.raises(RuntimeError, match="nothing came out"):
        run([["true"]], 2, streams=True, gpu=False)
