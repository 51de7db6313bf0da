"""A forked command is, to all that can be seen of it, the process that it stands for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run
from .fork_server import ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux alone")

SCRIPTS = {
    "words": "print(sys.argv[1:], os.getcwd(), sorted(os.environ.items()), sys.path, __name__)",
    "modules": "print([name for name in sys.modules if name.partition('.')[0] == 'ovskit'], sys.modules['__main__'].sys is sys)",
    "streams": "print([(s.isatty(), s.seekable(), s.line_buffering, s.encoding, s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)])",
    "files": "print(sorted(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')))",
    "signals": "print([signal.getsignal(n) for n in range(1, 32)], signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    "much": "data = sys.stdin.read(); sys.stderr.write(data); sys.stdout.write(data)",
    "unread": "pass",
    "status": "sys.exit(3)",
    "message": "sys.exit('a message')",
    "at once": "print('lost'); os._exit(5)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "late": "threading.Timer(0.2, lambda: print('late')).start(); atexit.register(print, 'later'); print('early'); sys.exit(4)",
    "closed": "sys.stdout.close(); sys.exit(0)",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script(fork_server: Callable[[str | None], ForkServer], environment: dict[str, str], tmp_path: Path, script: str) -> None:
    path = tmp_path / "script.py"
    path.write_text("import atexit, os, signal, sys, threading\n" + script)
    env = {**environment, "OVS_EXTRACT_SIZE": "64"}
    words, data = [sys.executable, str(path), "a b", "c\udce9"], b"x" * 300_000
    real = subprocess.run(words, input=data, capture_output=True, env=env, cwd=tmp_path, timeout=60, check=False)
    forked = fork_server(env.get("OMP_NUM_THREADS")).run(words[1:], input=data, env=env, cwd=tmp_path, timeout=60)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_an_error_is_seen(fork_server: Callable[[str | None], ForkServer], environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("raise ValueError('why')")
    done = fork_server(environment.get("OMP_NUM_THREADS")).run(
        [str(tmp_path / "script.py")], input=b"", env=environment, cwd=None, timeout=60
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, b"ValueError: why")


def test_too_slow_a_command_is_killed(fork_server: Callable[[str | None], ForkServer], environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    (tmp_path / "next.py").write_text("print('next')")
    server = fork_server(environment.get("OMP_NUM_THREADS"))
    with pytest.raises(subprocess.TimeoutExpired):
        server.run([str(tmp_path / "slow.py")], input=b"", env=environment, cwd=None, timeout=1)
    assert server.run([str(tmp_path / "next.py")], input=b"", env=environment, cwd=None, timeout=60).stdout == b"next\n"


@pytest.mark.parametrize(
    "arguments",
    [("ovs-cluster", "--local", "--local-size", "64", "-v"), ("ovs-cluster", "--thresholds", "high"), ("ovs-show", "--images", "absent")],
)
def test_a_command(ovs: Run, process: Run, features: Path, arguments: tuple[str, ...]) -> None:
    real, forked = (run(*arguments, stdin=features.read_bytes()) for run in (process, ovs))
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_the_environment_of_other_libraries_is_read_anew(ovs: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With more changed than a fork can follow, the process is a real one."""
    seen = []
    monkeypatch.setattr(ForkServer, "run", lambda self, words, **named: seen.append(words))
    ovs("ovs-show", "--version", env={"OVS_EXTRACT_SIZE": "64"})
    assert len(seen) == 1
    assert ovs("ovs-show", "--version", env={"OVS_EXTRACT_SIZE": "64", "NUMBA_NUM_THREADS": "1"}).returncode == 0
    assert len(seen) == 1
