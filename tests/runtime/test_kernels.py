"""Where machine code is kept, and what makes it stale."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numba.core import config

from ovskit.core.runtime import cache_folder, kernels

KERNEL = """
from callee import inner
from ovskit.core.runtime.kernels import njit

STEP = 2

@njit(cache=True)
def outer(x):
    return inner(x) + STEP
"""
CALLEE = """
from ovskit.core.runtime.kernels import njit

@njit(cache=True)
def inner(x):
    return x + 1
"""


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is decided once in a process is decided again, and the user's settings are none."""
    monkeypatch.setattr(config, "CACHE_DIR", "")
    # Bytecode is told from that of another source by size and second: edits here are quicker than any person's.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    asked = (kernels.places, kernels.own_folder, kernels.can_write, kernels._hash_of, kernels._say_lost)
    for function in asked:
        function.cache_clear()
    yield
    for function in asked:
        function.cache_clear()


def load(folder: Path, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    kernels._hash_of.cache_clear()
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outer(folder: Path, monkeypatch: pytest.MonkeyPatch, *, caller: str = KERNEL, callee: str = CALLEE) -> Any:
    """The outer kernel, as a new process would have it."""
    monkeypatch.setitem(sys.modules, "callee", load(folder, "callee", callee))
    return load(folder, "caller", caller).outer


def test_machine_code_is_kept_beside_the_source_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = outer(tmp_path, monkeypatch)
    assert not kernels.is_compiled(first)
    assert first(1) == 4
    assert kernels.is_compiled(first)
    assert first.stats.cache_path == str(tmp_path / "__pycache__")
    again = outer(tmp_path, monkeypatch)
    assert again(1) == 4
    assert (again.stats.cache_hits.total(), again.stats.cache_misses.total()) == (1, 0)


def test_an_edit_in_a_file_that_is_called_into_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba's own cache would go on with the old one."""
    assert outer(tmp_path, monkeypatch)(1) == 4
    assert outer(tmp_path, monkeypatch, callee=CALLEE.replace("x + 1", "x + 10"))(1) == 13


def test_a_constant_of_another_file_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = KERNEL.replace("STEP = 2", "from callee import STEP")
    stamps = {kernels.source_stamp(outer(tmp_path, monkeypatch, caller=caller, callee=f"{CALLEE}\nSTEP = {k}\n").py_func) for k in (2, 3)}
    assert len(stamps) == 2


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    assert outer(tmp_path, monkeypatch)(1) == 4
    for path in (tmp_path / "__pycache__").glob(f"*.{suffix}"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = outer(tmp_path, monkeypatch)
    assert again(1) == 4
    assert again.stats.cache_misses.total() == 1


def writable(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Only what lies in ``folders`` can be written."""
    for module in (kernels, cache_folder):
        monkeypatch.setattr(module, "can_write", lambda path: any(Path(path).is_relative_to(folder) for folder in folders))


def test_the_first_folder_that_can_be_written_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "source home cache tmp given".split()
    source, home, cache, tmp, given = (tmp_path / name for name in names)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("TMPDIR", str(tmp))
    monkeypatch.setattr(cache_folder, "_TEMPORARY", str(tmp))
    own = f"ovskit-{os.geteuid()}"

    def written(*folders: Path) -> tuple[list[str], str | None]:
        kernels.places.cache_clear()
        kernels.own_folder.cache_clear()
        writable(monkeypatch, *folders)
        return kernels.places(str(source))

    beside = str(source / "__pycache__")
    assert written(source, cache, home, tmp) == ([beside], beside)
    read, target = written(cache, home, tmp)
    assert read == [beside, target]
    assert Path(str(target)).parent == cache / "ovskit" / "kernels"
    assert Path(str(written(home, tmp)[1])).parent == home / ".cache" / "ovskit" / "kernels"
    assert Path(str(written(tmp)[1])).parent == tmp / own / "kernels"
    assert written() == ([beside], None)
    monkeypatch.setattr(config, "CACHE_DIR", str(given))
    read, target = written(given, source, tmp)
    assert read == [target, beside]
    assert Path(str(target)).parent == given
    assert written(source) == ([beside], beside)


def test_what_is_compiled_in_vain_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    writable(monkeypatch)
    monkeypatch.setattr(kernels, "own_folder", lambda: None)
    with caplog.at_level(logging.WARNING, "ovskit"):
        assert outer(tmp_path, monkeypatch)(1) == 4
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_read_only_machine_code_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outer(tmp_path, monkeypatch)(1) == 4
    writable(monkeypatch)
    monkeypatch.setattr(kernels, "own_folder", lambda: None)
    kernels.places.cache_clear()
    again = outer(tmp_path, monkeypatch)
    assert again(1) == 4
    assert again.stats.cache_hits.total() == 1


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels._Folder, "save_overload", full)
    assert outer(tmp_path, monkeypatch)(1) == 4
    assert "No space left" in caplog.text


def test_nobody_elses_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    mine = tmp_path / "mine"
    assert cache_folder.is_own(str(mine))
    assert mine.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(mine)
    assert not cache_folder.is_own(str(tmp_path / "link"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert not cache_folder.is_own(str(tmp_path / "open"))
    (tmp_path / "file").write_bytes(b"")
    assert not cache_folder.is_own(str(tmp_path / "file"))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert not cache_folder.is_own(str(mine))
    assert "not yours alone" in caplog.text
