"""How fast feature members go through an operating-system pipe between two processes.

Each row starts a writer and a reader with a real pipe between them and passes 25 MB members (128 × 128 × 768 float16 is
25.2 MB). The reader notes when it holds each member, checked; the rate is that of the fastest run of six members in a
row over all repetitions, so the first member, start-up and a machine busy elsewhere do not count; the median over the
repetitions is shown beside it. The alternatives are measured if they can be imported (``pip install isal zlib-ng
stream-zip stream-unzip``) and named as not installed otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator

from harness.arguments import bench_parser
from harness.machine import installed, machine
from harness.measure import timed
from harness.report import show, write_json

BAR = 1.0  # GB/s
RUN = 6
# Label → (writer, reader, CRC, pipe bytes or 0 for the system's own, package that the row needs). Left alone, the module
# takes isal's CRC where it is installed, else zlib's, and asks for a pipe of 1 MiB.
ROWS = {
    "bare pipe: write, readinto, no CRC": ("bare", "bare", "-", 0, ""),
    "bare pipe, 1 MiB": ("bare", "bare", "-", 1 << 20, ""),
    "ovskit, zlib": ("ovskit", "ovskit", "zlib", 0, ""),
    "ovskit, zlib, 1 MiB pipe": ("ovskit", "ovskit", "zlib", 1 << 20, ""),
    "ovskit, zlib-ng, 1 MiB pipe": ("ovskit", "ovskit", "zlib-ng", 1 << 20, "zlib-ng"),
    "ovskit, isal": ("ovskit", "ovskit", "isal", 0, "isal"),
    "ovskit, isal, 1 MiB pipe": ("ovskit", "ovskit", "isal", 1 << 20, "isal"),
    "stream-zip | stream-unzip": ("stream-zip", "stream-unzip", "zlib", 0, "stream-unzip"),
    "stream-zip | stream-unzip, 1 MiB chunks and pipe": ("stream-zip-1m", "stream-unzip-1m", "zlib", 1 << 20, "stream-unzip"),
    "ovskit | stream-unzip, 1 MiB chunks and pipe": ("ovskit", "stream-unzip-1m", "zlib", 1 << 20, "stream-unzip"),
}


def crc_of(name: str) -> Callable[..., int]:
    if name == "isal":
        from isal.isal_zlib import crc32
    elif name == "zlib-ng":
        from zlib_ng.zlib_ng import crc32
    else:
        from zlib import crc32
    return crc32


def use(crc: str) -> None:
    """Make the module take this CRC, and leave pipes as the parent set them."""
    from ovskit.core.formats.streams import zipstream

    zipstream.crc32 = crc_of(crc)
    zipstream._enlarge_pipe = lambda stream: None


def write(kind: str, crc: str, size: int, members: int) -> None:
    data = os.urandom(size)
    if kind == "ovskit":
        from ovskit.core.formats.streams import zipstream

        use(crc)
        with zipstream.StoredZipWriter(sys.stdout.buffer) as writer:
            for index in range(members):
                writer.write(f"{index:012d}/patch.npy", data)
    elif kind == "bare":
        for _ in range(members):
            sys.stdout.buffer.write(data)
    else:
        from stream_zip import NO_COMPRESSION_64, stream_zip

        step = 1 << (20 if kind.endswith("1m") else 16)
        view = memoryview(data)
        date = datetime.datetime(1980, 1, 1)
        files = (
            # The sum is taken anew for every member, as it must be where members differ.
            (f"{index:012d}/patch.npy", date, 0o644, NO_COMPRESSION_64(size, zlib.crc32(data)), blocks(view, step))
            for index in range(members)
        )
        for chunk in stream_zip(files, chunk_size=step):
            sys.stdout.buffer.write(chunk)


def blocks(view: memoryview, step: int) -> Iterator[bytes]:
    for start in range(0, len(view), step):
        yield bytes(view[start : start + step])


def read(kind: str, crc: str, size: int, members: int) -> None:
    stream = sys.stdin.buffer
    marks = []
    if kind == "ovskit":
        from ovskit.core.formats.streams import zipstream

        use(crc)
        for _, data in zipstream.read_members(stream, "standard input"):
            assert len(data) == size
            marks.append(time.perf_counter())
    elif kind == "bare":
        import numpy as np

        for _ in range(members):
            assert stream.readinto(np.empty(size, np.uint8).data) == size
            marks.append(time.perf_counter())
    else:
        from stream_unzip import stream_unzip

        step = 1 << (20 if kind.endswith("1m") else 16)
        for _, _, chunks in stream_unzip(iter(lambda: stream.read(step), b""), chunk_size=step):
            assert len(b"".join(chunks)) == size
            marks.append(time.perf_counter())
    assert len(marks) == members
    print(json.dumps(marks))


def through_pipe(label: str, size: int, members: int) -> list[float]:
    """Seconds per member, by runs of ``RUN`` members in a row."""
    writer, reader, crc, pipe_size, _ = ROWS[label]
    source, sink = os.pipe()
    if pipe_size:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, pipe_size)
    child = [sys.executable, __file__, "--size", str(size), "--members", str(members), "--crc", crc]
    with (
        subprocess.Popen([*child, "--write", writer], stdout=sink) as out,
        subprocess.Popen([*child, "--read", reader], stdin=source, stdout=subprocess.PIPE) as into,
    ):
        os.close(source)
        os.close(sink)
        marks = json.loads(into.communicate()[0])
        if out.wait() or into.returncode:
            raise SystemExit(f"{label}: a process failed")
    return [(marks[at + RUN] - marks[at]) / RUN for at in range(len(marks) - RUN)]


def crc_rates(size: int) -> dict[str, float | None]:
    data = os.urandom(size)
    rates: dict[str, float | None] = {}
    for name in ("zlib", "zlib-ng", "isal"):
        try:
            crc = crc_of(name)
        except ImportError:
            rates[name] = None
            continue
        rates[name] = size / timed(lambda crc=crc: crc(data), 9).least / 1e9
    return rates


def main() -> None:
    parser = bench_parser(__doc__, repeat=5, json=True)
    parser.add_argument("--size", type=int, default=25_000_000, help="bytes of a member [25000000]")
    parser.add_argument("--members", type=int, default=24, help=f"members of a stream, more than {RUN} [24]")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--crc", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size, members = arguments.size, arguments.members
    if members <= RUN:
        parser.error(f"--members must be more than {RUN}")
    if arguments.write:
        return write(arguments.write, arguments.crc, size, members)
    if arguments.read:
        return read(arguments.read, arguments.crc, size, members)

    times: dict[str, list[list[float]]] = {label: [] for label in ROWS if not ROWS[label][4] or installed(ROWS[label][4])}
    for _ in range(arguments.repeat):  # rows take turns, so a busy minute does not hit one row alone
        for label in times:
            times[label].append(through_pipe(label, size, members))
    rates = crc_rates(size)
    results = {
        label: {
            "best_gb_s": size / min(min(run) for run in runs) / 1e9,
            "median_gb_s": size / statistics.median(statistics.median(run) for run in runs) / 1e9,
        }
        for label, runs in times.items()
    }
    rows = []
    for label, row in ROWS.items():
        if label in results:
            best, median = results[label]["best_gb_s"], results[label]["median_gb_s"]
            rows.append((label, f"{best:.2f}", f"{median:.2f}", "met" if best >= BAR else "missed"))
        else:
            rows.append((label, f"{row[4]} is not installed", "", ""))
    alone = ", ".join(f"{name} {rate:.1f}" if rate else f"{name} not installed" for name, rate in rates.items())
    more = {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    about = machine("numpy", "isal", "zlib-ng", "stream-zip", "stream-unzip", **more)
    title = f"{size / 1e6:g} MB members through a pipe (bar {BAR:g} GB/s)"
    show(title, ("writer | reader", "best GB/s", "median GB/s", "bar"), rows, f"CRC-32 alone, GB/s: {alone}", about)
    write_json(arguments.json, {"bench": "stream", "machine": about, "size": size, "pipe": results, "crc_gb_s": rates})


if __name__ == "__main__":
    main()
