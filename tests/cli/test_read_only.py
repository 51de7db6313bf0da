"""A package that cannot be written, as in an image or a module tree, and a user without a home."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import command

ROOT = Path(__file__).parent.parent.parent
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


def _without_privilege() -> None:
    """In the child of root: from the next program on, modes hold for root's own files too."""
    if ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0):
        os._exit(77)


def _modes(folder: Path, *, writable: bool) -> None:
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        path.chmod(0o755 if writable else 0o555)


def _machine_code(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.nbc")}


@pytest.mark.skipif(sys.platform != "linux", reason="root's privilege over modes is dropped as Linux does it")
def test_a_read_only_package_without_a_home(environment: dict[str, str], masks: Path, tmp_path: Path) -> None:
    package, locked, temporary = (tmp_path / name for name in ("site", "locked", "tmp"))
    for name in ("core", "cli"):
        shutil.copytree(ROOT / name, package / "ovskit" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (locked, temporary):
        folder.mkdir()
    locked.chmod(0o555)
    without = {key: value for key, value in environment.items() if key not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    env = {**without, "PYTHONPATH": str(package), "HOME": str(locked / "home"), "TMPDIR": str(temporary)}

    def grown(**changes: str) -> bytes:
        done = subprocess.run(
            [command("ovs-hier"), masks], capture_output=True, env={**env, **changes}, timeout=300, check=False,
            preexec_fn=_without_privilege if os.geteuid() == 0 else None,
        )  # fmt: skip
        if done.returncode == 77:
            pytest.skip("this root may not give up its privilege over modes")
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    try:
        first = grown()  # the package can be written: as make setup's, or an image's while it is built
        kept = _machine_code(package)
        assert kept
        _modes(package, writable=False)
        assert grown() == first
        assert not _machine_code(temporary)  # nothing was compiled again
        _modes(package, writable=True)
        lost = {path.name for path in (package / "ovskit" / "core" / "hier" / "__pycache__").glob("*.nb[ic]")}
        for path in (package / "ovskit" / "core" / "hier" / "__pycache__").glob("*.nb[ic]"):
            path.unlink()
        _modes(package, writable=False)
        assert grown() == first
        own = temporary / f"ovskit-{os.geteuid()}"
        assert own.stat().st_mode & 0o777 == 0o700
        assert _machine_code(own) == {name for name in lost if name.endswith(".nbc")}  # what was missing, and only that
        assert not _machine_code(package) - kept
        assert grown(NUMBA_CACHE_DIR=str(tmp_path / "named")) == first
        assert _machine_code(tmp_path / "named") == _machine_code(own)
    finally:
        _modes(package, writable=True)
        locked.chmod(0o755)
