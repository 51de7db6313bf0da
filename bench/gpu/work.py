"""What the measurements of bench/gpu/fast.py share: where to work, how time and memory are taken, and how a finding is written down."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness.measure import Timing

from gpu.lines import Lines, Value

DRY = "dry: not a measurement"
FULL = "out of memory"


class Clock:
    """Seconds that work takes on a device: between two events of its stream on CUDA, by the wall on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def time(self, work: Callable[[], Any], *, repeat: int, warm: int = 1) -> Timing:
        """Time ``repeat`` runs after ``warm`` ones, one after the other. What ``work`` returns is dropped at once."""
        for _ in range(warm):
            work()
        self.wait()
        seconds = [self._once(work) for _ in range(repeat)]
        return Timing(seconds)

    def wait(self) -> None:
        """Until the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def wall(self, work: Callable[[], Any]) -> float:
        """Seconds of the wall until the device is done with one run: what the host does counts, too."""
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun

    def _once(self, work: Callable[[], Any]) -> float:
        if self._device.type != "cuda":
            return self.wall(work)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        work()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1000  # it has milliseconds


class Peak:
    """The most memory that was allocated since this was made: on the device, or of the process on a CPU, where it is of its whole life."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

    def values(self) -> dict[str, Value]:
        if self._device.type == "cuda":
            return {"peak_mib": round(torch.cuda.max_memory_allocated(self._device) / 2**20)}
        return {"peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


@dataclass(frozen=True)
class Work:
    """Where one measurement's process works: on ``device``, in ``folder``, which all of a run share; ``dry`` is in miniature.

    ``part`` is that of its lines.
    """

    part: str
    device: torch.device
    dry: bool
    folder: Path
    lines: Lines

    @property
    def clock(self) -> Clock:
        return Clock(self.device)

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @contextmanager
    def measuring(self, what: str) -> Iterator[dict[str, Value]]:
        """Write what the block puts into the dictionary; or that it failed, and why, and go on after it.

        What does not fit into the device's memory is a finding like another: ``memory`` says so.
        """
        with self.lines.measuring(self.part, what, DRY if self.dry else "") as values:
            try:
                yield values
            except torch.OutOfMemoryError:
                values["memory"] = FULL
        if self.gpu:
            torch.cuda.empty_cache()

    def remember(self, values: dict[str, float]) -> None:
        """Keep numbers for the processes that come after this one."""
        path = self.folder / "known.json"
        path.write_text(json.dumps(self.known() | values), encoding="utf-8")

    def known(self) -> dict[str, float]:
        """What processes before this one kept; nothing, if they failed."""
        path = self.folder / "known.json"
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found


def command(name: str) -> str:
    """The path of a command, from PATH or from beside this Python. Raises FileNotFoundError."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        raise FileNotFoundError(f"{name} is neither in PATH nor beside {sys.executable}")
    return found
