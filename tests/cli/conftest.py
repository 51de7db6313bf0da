"""Commands as users run them.

``shell`` and ``process`` start real processes; ``ovs`` forks them from one that has imported torch, which is the same to most
tests and several times sooner done. What the tests share (``features``, ``masks``, runs of training) is made by real processes,
so that every command is one somewhere, and bytes that must not change are compared between the two kinds.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from .fork_server import ForkServer

BIN = Path(sys.executable).parent
PRETEND = Path(__file__).parents[1] / "pretend_card.py"
# As the installed script does; where ovskit is only on the path there is none.
SCRIPT = "import sys; sys.argv[0] = {tool!r}; from ovskit.cli.{name} import app; app()"


def command(tool: str) -> str:
    """The installed command of this environment."""
    return str(BIN / tool)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """A plain environment: no OVS_ settings, stdout buffered as it is for users, the hub out of reach at once."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OVS_") and k != "PYTHONUNBUFFERED"}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", "HF_HUB_OFFLINE": "1"}


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def words(tool: str, arguments: tuple[object, ...]) -> list[str]:
    return [command(tool), *(os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments)]


@pytest.fixture(scope="session")
def process(environment: dict[str, str]) -> Run:
    """``process("ovs-cluster", "--no-local", "f.npz")`` runs the installed command as a user's shell would."""

    def run(tool: str, *arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None):
        return subprocess.run(
            words(tool, arguments), input=stdin, capture_output=True, env={**environment, **(env or {})}, cwd=cwd, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="session")
def fork_server(environment: dict[str, str]) -> Iterator[Callable[[str | None], ForkServer]]:
    """The fork server whose OMP_NUM_THREADS is as given; libraries read it when they are imported."""
    servers: dict[str | None, ForkServer] = {}

    def server(threads: str | None) -> ForkServer:
        if threads not in servers:
            servers[threads] = ForkServer({**environment, **({} if threads is None else {"OMP_NUM_THREADS": threads})})
        return servers[threads]

    yield server
    for one in servers.values():
        one.close()


@pytest.fixture(scope="session")
def ovs(environment: dict[str, str], process: Run, fork_server: Callable[[str | None], ForkServer]) -> Run:
    """As ``process``, but forked from a server that has imported torch already (``fork_server.py`` says what is then not real).

    For what a command does, not for how its process starts or dies. Other libraries may have read their settings when the
    server imported them, so the process is a real one if ``env`` changes more than ovskit's own and the number of threads.
    """

    def run(tool: str, *arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None):
        whole = {**environment, **(env or {})}
        changed = {name for name in whole if whole[name] != environment.get(name) and not name.startswith("OVS_")}
        if sys.platform != "linux" or not changed <= {"OMP_NUM_THREADS"}:  # elsewhere the system's libraries do not survive a fork
            return process(tool, *arguments, stdin=stdin, env=env, cwd=cwd)
        server = fork_server(whole.get("OMP_NUM_THREADS"))
        return server.run(words(tool, arguments), input=stdin, env=whole, cwd=cwd, timeout=300)

    return run


@pytest.fixture(scope="session")
def shell(environment: dict[str, str]) -> Run:
    """Run a line of bash; its pipelines fail as their first failing command does (pipefail)."""

    def run(line: str, cwd: Path | None = None):
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], capture_output=True, env=environment, cwd=cwd, timeout=300, check=False
        )

    return run


@pytest.fixture
def at_once() -> Callable[..., None]:
    """``at_once((tool, *arguments), …)`` runs commands beside each other, on the pretend card if that is what the test has."""
    import torch

    pretended = hasattr(torch.zeros(1, device="cuda"), "inside")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OVS_")}
    paths = os.pathsep.join([str(PRETEND.parents[1]), *filter(None, [kept.get("PYTHONPATH")])])

    def words(tool: str, *arguments: object) -> list[str]:
        start = [str(PRETEND), tool] if pretended else ["-c", SCRIPT.format(tool=tool, name=tool.removeprefix("ovs-"))]
        return [sys.executable, *start, *map(str, arguments)]

    def run(*commands: tuple[object, ...]) -> None:
        processes = [
            subprocess.Popen(words(*one), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**kept, "PYTHONPATH": paths})  # type: ignore[arg-type]
            for one in commands
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=200)
                assert process.returncode == 0, errors.decode()[-2000:]
        finally:
            for process in processes:
                process.kill()
                process.wait()

    return run


def paint(seed: int, size: tuple[int, int] = (120, 96)) -> Pillow.Image:
    """A small scene of flat shapes with a little noise, as RGB."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[1], : size[0]]
    pixels = np.full((size[1], size[0], 3), random.integers(0, 256, 3), np.float64)
    for _ in range(6):
        cx, cy, r = random.uniform(0, size[0]), random.uniform(0, size[1]), random.uniform(6, 30)
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = random.integers(0, 256, 3)
    return Pillow.fromarray(np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five small scenes."""
    folder = tmp_path_factory.mktemp("images") / "imgs"
    folder.mkdir()
    for k in range(5):
        paint(k).save(folder / f"scene-{k}.png")
    return folder


@pytest.fixture(scope="session")
def features(images: Path, process: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature stream of ``images`` at 128 × 128."""
    path = tmp_path_factory.mktemp("features") / "features.npz"
    done = process("ovs-extract", images, "--size", "128", "-o", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def masks(features: Path, process: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks of ``features`` by SOHES' thresholds, local step included, each with a score almost of its own."""
    path = tmp_path_factory.mktemp("masks") / "masks.json"
    done = process("ovs-cluster", features, *"--thresholds 0.6..0.1 --score cosine --local --local-size 64 -o".split(), path)
    assert done.returncode == 0, done.stderr
    return path


def one_line(done: "subprocess.CompletedProcess[bytes]", *words: str) -> str:
    """stderr, which must be one line without a traceback that holds ``words``."""
    text = done.stderr.decode()
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text
    return text
