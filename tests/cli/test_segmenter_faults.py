"""A disk that fills up under ovs-train segment and ovs-predict: one line, exit 74, and what was there before survives.

``ulimit -f`` stands in for the disk: the kernel refuses what a file would grow to beyond it, in the middle of a write.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.scenes import Faults, write_scenes

from .conftest import command, one_line

TINY = (
    "--batch 2 --device cpu --warmup 1 --schedule constant --log-every 1 -q -j 1 --scratch --set size=tiny --set queries=8 "
    "--set points=64 --set side=64 --set backbone=timm:test_vit"
).split()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, range(4), side=64, faults=Faults())
    return folder


@pytest.fixture(scope="module")
def limited(environment: dict[str, str]):
    """``limited(kib, tool, arguments …)`` runs a command whose files may have so many KiB; 0: as many as they like."""

    def run(kib: int, tool: str, *arguments: object) -> "subprocess.CompletedProcess[bytes]":
        limit = f"ulimit -f {kib}; " if kib else ""
        line = ["bash", "-c", limit + 'exec "$0" "$@"', command(tool), *(str(a) for a in arguments)]
        return subprocess.run(line, capture_output=True, env={**environment, "OMP_NUM_THREADS": "1"}, timeout=300, check=False)

    return run


@pytest.fixture(scope="module")
def run(limited, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("segment") / "run"
    begin = ("segment", scenes / "pseudo.json", "--images", scenes / "images", "-o", folder, "--steps", 2, *TINY)
    assert limited(0, "ovs-train", *begin).returncode == 0
    return folder


def test_the_disk_fills_up(limited, run: Path, scenes: Path, tmp_path: Path) -> None:
    def train(kib: int, name: str, steps: int, *more: str) -> "subprocess.CompletedProcess[bytes]":
        begin = ("segment", scenes / "pseudo.json", "--images", scenes / "images", "-o", tmp_path / name)
        return limited(kib, "ovs-train", *begin, "--steps", steps, *TINY, *more)

    folder = tmp_path / "run"

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "log.jsonl"}

    shutil.copytree(run, folder)
    before = content()
    names = {"checkpoint.safetensors", "config.json", "model.safetensors", "training.json"}
    assert set(before) == names

    # The checkpoint is about 34 MiB, the model 7.
    done = train(20_000, "run", 4, "--resume")
    assert done.returncode == 74
    one_line(done, "cannot write", "checkpoint.safetensors")
    assert content() == before

    assert train(0, "run", 4, "--resume").returncode == 0
    after = content()
    assert train(0, "whole", 4).returncode == 0
    resumed, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]

    # Nothing is left to do but the model, which does not fit.
    done = train(1000, "run", 4, "--resume")
    assert done.returncode == 74
    one_line(done, "cannot write", "model.safetensors")
    assert content() == after


def test_not_even_the_index_fits(limited, scenes: Path, tmp_path: Path) -> None:
    begin = ("segment", scenes / "truth.json", "--images", scenes / "images", "-o", tmp_path / "run", "--steps", 2, *TINY)
    many = json.loads((scenes / "truth.json").read_text())
    many["annotations"] = [{**one, "id": k, "parent_id": None} for k, one in enumerate(many["annotations"] * 40, 1)]
    (tmp_path / "many.json").write_text(json.dumps(many))
    done = limited(1, "ovs-train", "segment", tmp_path / "many.json", *begin[2:])
    assert done.returncode == 74
    one_line(done, "cannot write the index")
    assert list((tmp_path / "run").iterdir()) == []


def test_masks_do_not_fit(limited, run: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    predict = ("ovs-predict", "--checkpoint", run, "--device", "cpu", "-q", scenes / "images", "-o", out / "m.json")
    assert limited(0, *predict).returncode == 0
    before = (out / "m.json").read_bytes()
    assert len(before) > 2048
    done = limited(2, *predict, "--min-score", 0.0001)
    assert done.returncode == 74
    one_line(done, "cannot write", "m.json")
    assert [path.name for path in out.iterdir()] == ["m.json"]
    assert (out / "m.json").read_bytes() == before
    # With --resume the part stays, and is gone on from.
    (out / "m.json").unlink()
    done = limited(2, *predict, "--resume")
    assert done.returncode == 74
    one_line(done, "cannot write", "m.json")
    assert [path.name for path in out.iterdir()] == ["m.json.part"]
    assert limited(0, *predict, "--resume").returncode == 0
    assert (out / "m.json").read_bytes() == before
