"""How long work takes, and how much memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Timing:
    """Seconds of each run of a piece of work, and what the last run returned."""

    seconds: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(work: Callable[[], Any], repeat: int, *, warm: int = 0, clock: Callable[[], float] = time.perf_counter) -> Timing:
    """``repeat`` runs of ``work`` by a clock, after ``warm`` runs that do not count."""
    return in_turns([work], repeat, warm=warm, clock=clock)[0]


def in_turns(
    works: Sequence[Callable[[], Any]],
    repeat: int,
    *,
    warm: int = 0,
    at_least: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """``repeat`` runs of each work, and more until ``at_least`` seconds have passed.

    They take turns, so that a minute in which the machine is busy does not hit one of them alone.
    """
    timings = [Timing() for _ in works]
    for _ in range(warm):
        for work in works:
            work()
    end = time.perf_counter() + at_least
    while repeat > 0 or time.perf_counter() < end:
        repeat -= 1
        for timing, work in zip(timings, works, strict=True):
            begun = clock()
            timing.result = work()
            timing.seconds.append(clock() - begun)
    return timings


def use_threads(count: int) -> None:
    """Have torch, numba and OpenCV use this many threads."""
    import cv2
    import numba
    import torch

    torch.set_num_threads(count)
    numba.set_num_threads(count)
    cv2.setNumThreads(count)


def resident(key: str) -> int:
    """Bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at most so far. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def spent(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Wait for a process: its exit code, CPU seconds, and the most memory that it held at a time, in MiB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"exit": process.returncode, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}
