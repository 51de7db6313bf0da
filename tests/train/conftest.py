import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)  # these networks are too small to share out, and waiting for another thread takes longer

_LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_PROCESS = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from toy import ToyRecipe
from ovskit.core.train.engine.devices import open_devices
from ovskit.core.train.engine.loop import TrainOptions, train
if {device!r} != "cpu":
    import torch
    torch.distributed.init_process_group("gloo")  # NCCL refuses two processes on one card
devices = open_devices({device!r}, {precision!r})
assert devices.world == 2
assert devices.device.type == {device!r}
watched = []
for stop_after in ({stop_after}, None):
    options = TrainOptions(**{options!r}, stop_after=stop_after)
    train(ToyRecipe(plain=True), options, Path({folder!r}), devices=devices, resume=True, watch=watched.append)
assert bool(watched) == (devices.rank == 0)
devices.close()
"""


@pytest.fixture(autouse=True)
def _plain_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no launcher had started the tests."""
    for name in _LAUNCH:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def launch() -> Callable[..., None]:
    """Trains the plain toy recipe in two processes, as torchrun would start them: to step ``stop_after``, and from there to the end.

    On ``cuda`` both have the same card.
    """

    def run(folder: Path, options: dict[str, Any], *, stop_after: int, device: str = "cpu") -> None:
        values = {"options": options, "folder": str(folder), "stop_after": stop_after, "device": device}
        # What a run's options say of precision is not asked for where devices are given.
        code = _PROCESS.format(here=str(Path(__file__).parent), precision=options.get("precision", "auto"), **values)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                env={**common, "RANK": str(k), "LOCAL_RANK": str(k if device == "cpu" else 0), "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
            )
            for k in range(2)
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=120)
                assert process.returncode == 0, errors.decode()
        finally:
            for process in processes:
                process.kill()
                process.wait()

    return run
