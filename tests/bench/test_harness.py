"""bench/harness: what its tables, times, flags and commands are, on things whose answers are known."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT
from harness.arguments import bench_parser, chosen_sets, list_of
from harness.commands import CommandError, logged, pipe, run
from harness.machine import installed, machine, surroundings, without_folders
from harness.measure import in_turns, resident, timed
from harness.photographs import first_images
from harness.report import metric_text, percent, section, show, span, table, with_interval, write_json


def ticks() -> Iterator[float]:
    """A clock that goes on by 1, 2, 3 … seconds each time it is read."""
    now = 0.0
    for step in range(1, 1000):
        now += step
        yield now


def test_runs_are_counted_and_timed_by_the_clock_that_is_given() -> None:
    calls: list[int] = []
    times = ticks()

    def work() -> int:
        calls.append(len(calls))
        return len(calls)

    timing = timed(work, 3, warm=2, clock=lambda: next(times))
    assert len(calls) == 5
    assert timing.result == 5
    # Between the first and the second reading 2 s pass, between the third and the fourth 4, then 6.
    assert timing.seconds == [2.0, 4.0, 6.0]
    assert (timing.least, timing.median) == (2.0, 4.0)


def test_works_take_turns_until_there_were_enough_seconds() -> None:
    order: list[str] = []
    first, second = in_turns([lambda: order.append("a"), lambda: order.append("b")], 2)
    assert order == ["a", "b", "a", "b"]
    assert len(first.seconds) == len(second.seconds) == 2
    order.clear()
    (timing,) = in_turns([lambda: order.append("a")], 0, at_least=0.02)
    assert len(order) == len(timing.seconds) > 1


def test_memory_of_this_process_and_of_another() -> None:
    before = resident("VmRSS")
    block = bytearray(b"x") * (32 << 20)
    assert resident("VmRSS") - before > 30 << 20
    assert resident("VmHWM") >= before + len(block)
    # From a small process: until it is another program a child counts the memory of the one that it is forked from.
    code = (
        "import json, subprocess, sys\nfrom harness.measure import spent\n"
        "child = 'x = bytearray(b\"x\") * (64 << 20); raise SystemExit(3)'\n"
        "print(json.dumps(spent(subprocess.Popen([sys.executable, '-c', child]))))"
    )
    bench = Path(__file__).parents[2] / "bench"
    done = subprocess.run([sys.executable, "-c", code], cwd=bench, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["exit"] == 3
    assert 64 < found["peak_mib"] < 200
    assert found["cpu_s"] > 0


def test_a_table_of_known_rows() -> None:
    assert table(("a", "b"), [("x", 1), ("y|z", 2.5)]) == ["| a | b |", "|---|---|", "| x | 1 |", "| y\\|z | 2.5 |"]
    assert section("Title", ("a",), [("x",)], "Text.") == ["", "## Title", "", "Text.", "", "| a |", "|---|", "| x |"]


def test_a_table_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show("title", ("name", "n"), [("left", 1), ("x", 100)], "a note")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "title"
    assert [line.split() for line in lines if "left" in line or " x " in line] == [
        ["│", "left", "│", "1", "│"],
        ["│", "x", "│", "100", "│"],
    ]
    assert lines[-1] == "a note"


def test_numbers_as_text() -> None:
    assert percent(0.1234) == "12.3"
    assert percent(None) == "–"
    assert span((0.1, 0.25)) == "[10.0, 25.0]"
    assert with_interval(0.01, (-0.02, 0.04), "+.1f") == "+1.0 [-2.0, +4.0]"
    assert with_interval(None, None) == "–"
    assert metric_text({"metrics": {"AP": 0.5}}, "AP") == "50.0"
    assert metric_text({"metrics": {"AP": 0.5}, "intervals": {"AP": [0.4, 0.6]}}, "AP") == "50.0 [40.0, 60.0]"


def test_json_is_written_if_there_is_a_file(tmp_path: Path) -> None:
    write_json(None, {"bench": "none"})
    write_json(tmp_path / "found.json", {"bench": "known", "rows": [{"s": 1.5}]})
    assert json.loads((tmp_path / "found.json").read_text()) == {"bench": "known", "rows": [{"s": 1.5}]}


def test_flags_are_there_if_they_are_asked_for() -> None:
    given = bench_parser("Text.", repeat=3, limit=7, jobs=True, json=True).parse_args(["--repeat", "5", "--json", "x.json"])
    assert vars(given) == {"repeat": 5, "limit": 7, "jobs": 1, "json": Path("x.json")}
    assert vars(bench_parser(None).parse_args([])) == {}
    with pytest.raises(SystemExit):
        bench_parser(None).parse_args(["--repeat", "5"])


def test_lists_of_values() -> None:
    assert list_of(int)("10,20") == [10, 20]
    assert list_of(str)("") == []
    with pytest.raises(argparse.ArgumentTypeError, match="choose from a, b"):
        list_of(str, ("a", "b"))("a,c")
    with pytest.raises(argparse.ArgumentTypeError, match="choose from coco_entities, bsds500, ccp_parts"):
        chosen_sets("voc")


def test_photographs_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.photographs.DATA", tmp_path)
    (tmp_path / "ccp_parts").mkdir()
    (tmp_path / "ccp_parts" / "parts_dev.json").write_text("{}")
    assert chosen_sets("ccp_parts") == ["ccp_parts"]
    with pytest.raises(argparse.ArgumentTypeError, match=r"no photographs of bsds500 in .*; set OVSKIT_TEST_DATA"):
        chosen_sets("ccp_parts,bsds500")


def test_the_first_images_of_a_ground_truth(tmp_path: Path) -> None:
    truth = tmp_path / "a set" / "truth.json"
    truth.parent.mkdir()
    truth.write_text(json.dumps({"images": [{"id": 1}, {"id": 2}, {"id": 3}], "annotations": [{"id": 1}], "categories": []}))
    options = first_images(truth, 2, tmp_path)
    assert options == f"--images '{tmp_path}/a set-2.json' --root '{tmp_path}/a set'"
    listed = json.loads((tmp_path / "a set-2.json").read_text())
    assert listed == {"images": [{"id": 1}, {"id": 2}], "annotations": [], "categories": []}


def test_commands_are_those_beside_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another ovs-eval that comes first in PATH is not taken."""
    impostor = tmp_path / "ovs-eval"
    impostor.write_text("#!/bin/sh\necho impostor\n")
    impostor.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert run("which", "ovs-eval").decode().strip() == str(Path(sys.executable).parent / "ovs-eval")
    assert run("printenv", "WHERE", extra={"WHERE": "here"}) == b"here\n"


def test_a_pipe_fails_where_one_of_its_commands_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert pipe("printf 'b\\na\\n'", "sort") == b"a\nb\n"
    assert pipe("pwd", cwd=tmp_path).decode().strip() == str(tmp_path)
    with pytest.raises(CommandError, match="^the last$") as failed:
        pipe("sh -c 'echo first; echo the last; exit 7' >&2", "cat")
    assert failed.value.code == 7
    assert capsys.readouterr().err == "first\nthe last\n"
    with pytest.raises(CommandError, match="false: exit code 1"):
        run("false")


def test_a_log_of_training(tmp_path: Path) -> None:
    lines = [{"step": 1, "losses": {"loss": 2.0}}, {"step": 1, "metrics": {}}, {"step": 2, "losses": {"loss": 1.0}}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line["step"] for line in logged(tmp_path)] == [1, 2]


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    about = machine("numpy", "no-such-package-of-anybodys", threads=2)
    assert about["threads"] == 2
    assert about["cpus"] == os.cpu_count()
    assert about["numpy"] == installed("numpy")
    assert about["no-such-package-of-anybodys"] is None
    monkeypatch.setattr(sys, "argv", [str(ROOT / "bench" / "rle.py"), "--json", str(ROOT / "build" / "rle.json"), "--repeat", "2"])
    found = surroundings("pytest")
    assert found["command"] == "python bench/rle.py --json build/rle.json --repeat 2"
    assert found["versions"]["pytest"] == pytest.__version__


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (f"{ROOT}/build/rle.json", "build/rle.json"),
        (f"{Path.home()}/runs/new/model.safetensors", "RUNS/new/model.safetensors"),
        ("--model=vit,/data/runs/new/model.safetensors", "--model=vit,RUNS/new/model.safetensors"),
        ("0.6..0.1", "0.6..0.1"),
    ],
)
def test_folders_of_this_machine_are_not_told(word: str, shown: str) -> None:
    assert without_folders(word) == shown
