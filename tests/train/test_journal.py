"""The log has every step once, whatever the run before it died of."""

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ovskit.core.runtime.errors import OutputError, UsageError
from ovskit.core.train.engine.journal import FILE_NAME, Journal


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "losses": {"loss": 0.5}, **more}


def written(folder: Path, *steps: int) -> Path:
    with Journal(folder) as journal:
        for step in steps:
            journal.write(line(step))
    return folder / FILE_NAME


def steps_of(folder: Path) -> list[int]:
    return [json.loads(text)["step"] for text in (folder / FILE_NAME).read_text().splitlines()]


def test_lines_beyond_the_checkpoint_are_cut(tmp_path: Path) -> None:
    written(tmp_path, 2, 4, 6, 8)
    with Journal(tmp_path, step=5) as journal:
        journal.write(line(6))
    assert steps_of(tmp_path) == [2, 4, 6]


def test_a_new_run_begins_a_new_log(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    written(tmp_path, 1)
    assert steps_of(tmp_path) == [1]


@pytest.mark.parametrize("tail", [b'{"step":4,"los', b'{"step":4}', b"\x00\x00\n", b"[4]\n", b'{"step":1}\n'])
def test_a_line_that_a_kill_or_a_full_disk_broke(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path, 2, 3)
    path.write_bytes(path.read_bytes() + tail)
    with Journal(tmp_path, step=9) as journal:
        journal.write(line(10))
    assert steps_of(tmp_path) == [2, 3, 10]


def test_it_knows_whether_the_last_step_was_evaluated(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write(line(2))
        journal.write({"step": 2, "evaluation": {"score": 1.0}})
        journal.write(line(4))
    for step, evaluated in [(4, False), (2, True)]:
        with Journal(tmp_path, step=step) as journal:
            assert journal.evaluated is evaluated


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write(line(1, gradient_norm=float("inf"), evaluation={"score": float("nan")}))
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {
        "step": 1,
        "losses": {"loss": 0.5},
        "gradient_norm": None,
        "evaluation": {"score": None},
    }


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write(line(1))
        with pytest.raises(OutputError, match="another run"):
            Journal(tmp_path)
        journal.write(line(2))
    assert steps_of(tmp_path) == [1, 2]
    written(tmp_path, 1)  # free again


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/dev/zero"), os.mkfifo])
def test_where_nothing_can_be_written(tmp_path: Path, make: Any) -> None:
    make(tmp_path / FILE_NAME)
    with pytest.raises(OutputError, match=r"log\.jsonl"):
        Journal(tmp_path)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        """Takes ten bytes, then no more."""

        def write(self, data: Any) -> int:
            if self.tell() >= 10:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(bytes(data)[: 10 - self.tell()])

    with Journal(tmp_path) as journal:
        journal._file.close()
        journal._file = full = Full()  # type: ignore[assignment]
        with pytest.raises(OutputError, match=r"log\.jsonl.*free some space"):
            journal.write(line(1))
        assert full.getvalue() == b'{"step":1,'


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'ovskit\[tensorboard\]'"):
        Journal(tmp_path, tensorboard=True)
    assert not (tmp_path / FILE_NAME).exists()


def test_numbers_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: every number, by its path, at its step."""
    import types

    seen: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            seen.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def close(self) -> None:
            seen.append(("closed",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with Journal(tmp_path, step=3, tensorboard=True) as journal:
        journal.write({"step": 4, "learning_rate": 0.1, "losses": {"loss": 2.0, "error": 1.0}})
    assert seen == [
        (str(tmp_path / "tensorboard"), 4), ("learning_rate", 0.1, 4), ("losses/loss", 2.0, 4), ("losses/error", 1.0, 4), ("closed",),
    ]  # fmt: skip
