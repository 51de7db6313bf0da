"""``ovs-extract IMAGES | ovs-cluster`` as a user runs it, on a GPU: images a second, each by itself and together; and decoding."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from gpu.keys import Vit
from gpu.lines import Value
from gpu.photographs import photographs
from gpu.work import Work, command
from ovskit.core.extract.options import ExtractOptions
from ovskit.core.extract.pipeline import extract_features
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.models.registry import load_backbone
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import default_workers, ordered_map

_IMAGE = re.compile(rb'"image_id":\s*(\d+)')
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Run:
    """A pipe that has ended: how many images were out after how many seconds, when it ended, and what each of its commands needed."""

    arrivals: Sequence[tuple[int, float]]
    seconds: float
    cpu: Sequence[float]
    peak_mib: Sequence[float]
    output: bytes
    gpu_mib: int | None

    def rate(self) -> float:
        """Images a second once it runs: a quarter of them is left out, which start-up delays."""
        last, end = self.arrivals[-1]
        first, begin = next(arrival for arrival in self.arrivals if 4 * arrival[0] >= last)
        return (last - first) / (end - begin) if end > begin else 0.0


class Filling:
    """The most memory in use on the card, by all processes, as its own tool tells it twice a second, where there is such a tool."""

    def __init__(self, gpu: bool) -> None:
        tool = shutil.which("nvidia-smi") if gpu else None
        words = [tool or "", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "500"]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) if tool else None

    def most(self) -> int | None:
        """MiB; ends the watching."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            text, _ = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:  # the pipe's own numbers are wanted all the same
            self._process.kill()
            return None
        numbers = [int(line) for line in text.splitlines() if line.strip().isdigit()]
        return max(numbers, default=None)


class Resident:
    """The most memory of each process, MiB: its own mark since it became its command, read until it ends.

    What the kernel gives with the exit code counts from the fork, when a process is as large as the one that started it.
    """

    _MARK = re.compile(r"VmHWM:\s*(\d+) kB")

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.most = [0.0] * len(processes)
        self._processes, self._over = processes, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for k, process in enumerate(self._processes):
                try:
                    found = self._MARK.search(Path(f"/proc/{process.pid}/status").read_text())
                except OSError:  # it has ended, or there is no such thing here
                    continue
                if found:
                    self.most[k] = int(found.group(1)) / 1024


def run(commands: Sequence[Sequence[str]], count: int, *, streams: bool, gpu: bool, given: Path | None = None) -> Run:
    """Run a pipe of commands over ``count`` images and read what comes out of it, keeping the time.

    ``streams``: the output is a feature stream, in which all images have as many bytes; else lines that say their image.
    ``given`` is the first one's input. Raises RuntimeError with the last line of a command's errors if one fails.
    """
    filling = Filling(gpu)
    begun = time.perf_counter()
    processes = _start(commands, given)
    resident = Resident(processes)
    errors = [_drained(process) for process in processes]
    out = processes[-1].stdout
    assert out is not None
    arrivals, output = (_read_stream if streams else _read_masks)(out, count, begun)
    cpu = []
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu.append(usage.ru_utime + usage.ru_stime)
    seconds = time.perf_counter() - begun
    resident.end()
    most = filling.most()
    codes = [process.returncode for process in processes]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {'; '.join(filter(None, (last() for last in errors)))}")
    if not output or not arrivals:
        raise RuntimeError("nothing came out")
    return Run(arrivals, seconds, cpu, resident.most, output, most)


def _start(commands: Sequence[Sequence[str]], given: Path | None) -> list[subprocess.Popen[bytes]]:
    """The commands, each reading from the one before it."""
    processes: list[subprocess.Popen[bytes]] = []
    with open(given or os.devnull, "rb") as source:
        for words in commands:
            earlier = processes[-1].stdout if processes else source
            assert earlier is not None
            processes.append(subprocess.Popen(list(words), stdin=earlier, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            earlier.close()  # ours; the command has its own
    return processes


def _read_stream(out: IO[bytes], count: int, begun: float) -> tuple[list[tuple[int, float]], bytes]:
    """How many of ``count`` images were there after how many seconds, by the bytes; and all that came."""
    sizes: list[tuple[int, float]] = [(0, 0.0)]
    pieces = []
    while piece := os.read(out.fileno(), _CHUNK):
        sizes.append((sizes[-1][0] + len(piece), time.perf_counter() - begun))
        pieces.append(piece)
    whole = sizes[-1][0]
    return [(count * size // whole, at) for size, at in sizes if count * size >= whole > 0], b"".join(pieces)


def _read_masks(out: IO[bytes], count: int, begun: float) -> tuple[list[tuple[int, float]], bytes]:
    """The same, by the images that masks say they are of; the last ones may have none."""
    arrivals: list[tuple[int, float]] = []
    pieces = []
    for line in out:
        found = _IMAGE.search(line)
        if found and (not arrivals or int(found.group(1)) > arrivals[-1][0]):
            arrivals.append((int(found.group(1)), time.perf_counter() - begun))
        pieces.append(line)
    return [*arrivals, (count, time.perf_counter() - begun)], b"".join(pieces)


def _drained(process: subprocess.Popen[bytes]) -> Callable[[], str]:
    """Read a process's errors in a thread; what comes back gives, once it has ended, their last line."""
    errors = process.stderr
    assert errors is not None
    lines: deque[bytes] = deque(maxlen=1)
    thread = threading.Thread(target=lambda: lines.extend(errors), daemon=True)
    thread.start()

    def last() -> str:
        thread.join(5)
        return lines[-1].decode(errors="replace").strip() if lines else ""

    return last


def pipe(work: Work, called: str, count: int, extract: Sequence[str], cluster: Sequence[str], *, alone: bool = True) -> None:
    """Each stage alone, then both, over the same photographs: three lines, or one."""
    folder, said = photographs(work, count)
    device = ["--device", str(work.device), "-q"]
    first = [command("ovs-extract"), *device, *extract, str(folder)]
    second = [command("ovs-cluster"), *device, *cluster]
    rates = _alone(work, called, count, first, second) if alone else {}
    with work.measuring(f"pipe, {called}: ovs-extract | ovs-cluster") as values:
        done = run([first, second], count, streams=False, gpu=work.gpu)
        values |= {"photographs": said, **described(done, count)}
        slower, faster = sorted(rates, key=lambda name: rates[name]) if len(rates) == 2 else (None, None)
        if slower and faster and rates[slower]:
            values |= {
                "held_back_by": slower,
                "share_of_its_rate": done.rate() / rates[slower],
                "other_faster_by": rates[faster] / rates[slower],
            }


def _alone(work: Work, called: str, count: int, first: Sequence[str], second: Sequence[str]) -> dict[str, float]:
    """Images a second of each command by itself, those that did not fail."""
    rates: dict[str, float] = {}
    features = work.folder / "features.npz"
    with work.measuring(f"pipe, {called}: ovs-extract alone") as values:
        done = run([first], count, streams=True, gpu=work.gpu)
        values |= {**described(done, count), "mib_image": len(done.output) / count / 2**20}
        rates["ovs-extract"] = done.rate()
        features.write_bytes(done.output)
        del done
    if features.exists():
        with work.measuring(f"pipe, {called}: ovs-cluster alone") as values:
            done = run([second], count, streams=False, gpu=work.gpu, given=features)
            values |= described(done, count)
            rates["ovs-cluster"] = done.rate()
        features.unlink()
    return rates


def described(done: Run, count: int) -> dict[str, Value]:
    """``busy_cores`` is CPU time over the whole time: start-up is in it, and all that a GPU is waited for by spinning."""
    values: dict[str, Value] = {"images": count, "images_s": done.rate(), "first_s": done.arrivals[0][1], "seconds": done.seconds}
    values["cpu_s_image"] = " + ".join(f"{spent / count:.3f}" for spent in done.cpu)
    values["busy_cores"] = " + ".join(f"{spent / done.seconds:.1f}" for spent in done.cpu)
    values["peak_mib"] = " + ".join(f"{peak:.0f}" for peak in done.peak_mib)
    if done.gpu_mib is not None:
        values["gpu_mib"] = done.gpu_mib
    return values


def pipe_builtin(work: Work) -> None:
    """The default pipe."""
    size = ["--size", "64"] if work.dry else []
    pipe(work, "builtin", 8 if work.dry else 192, size, [])


def pipe_keys(work: Work) -> None:
    """The pipe on a ViT-B/8's keys, of random weights: merging takes as long as on others, masks are fewer than DINO's."""
    vit = Vit(work)
    weights = ["--weights", str(vit.weights())]
    size = ["--size", "64"] if work.dry else []
    pipe(work, f"{vit.called} keys", 6 if work.dry else 48, ["--model", vit.name, *weights, *size], ["--no-local"], alone=not work.dry)


def decoding(work: Work) -> None:
    """Photographs a second, decoded and brought to 1024², on one core and on all; then features of them, without a pipe."""
    count = 8 if work.dry else 96
    folder, said = photographs(work, count)
    sources = list_sources([str(folder)]).items
    backbone = load_backbone("builtin", device=work.device)
    side = 64 if work.dry else 1024
    with work.measuring(f"photographs decoded and resized to {side}², images/s") as values:
        values |= {"photographs": said, "images": count, "pixels": "×".join(map(str, read_source(sources[0])[1].shape[1::-1]))}
        for workers in sorted({1, default_workers()}):
            some = sources[: max(8, count * workers // default_workers())]
            begun = time.perf_counter()
            for _ in ordered_map(lambda source: backbone.prepare(read_source(source)[1], side, side), some, workers):
                pass
            values[f"on_{workers}"] = len(some) / (time.perf_counter() - begun)
    vit = Vit(work)
    networks = {"builtin": lambda: backbone, f"{vit.called} keys, fp16": lambda: vit.load(torch.float16)}
    for called, load in networks.items():
        with work.measuring(f"features in this process, {called}, {side}², images/s") as values:
            network = load()
            found = extract_features(sources, network, ExtractOptions(size=(side, side)), Failures(skip=False), workers=default_workers())
            arrivals = [time.perf_counter() for _ in found]
            first = max(1, count // 4)
            values |= {"images": count, "images_s": (count - first) / (arrivals[-1] - arrivals[first - 1])}
