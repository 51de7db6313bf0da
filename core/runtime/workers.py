"""Work in parallel, results in order, never more than a few items in memory.

Threads, not processes: everything heavy here (Pillow, numba kernels with ``nogil``, torch) releases the interpreter
lock, feature maps need not be copied, and nothing is forked under CUDA.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def default_workers() -> int:
    """The cores this process may use (its affinity, so a SLURM allocation is respected), at least one."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS has no affinity
        return max(1, os.cpu_count() or 1)


class _End(Generic[A]):
    """Closes a queue: ``error`` is what the feeding side died of, if it did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Stopped(Exception):
    """The consumer has gone; tells the feeding thread to end."""


def _put(out: queue.Queue[A], item: A, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            out.put(item, timeout=0.1)
            return
        except queue.Full:
            continue
    raise _Stopped


def prefetch(items: Iterable[A], depth: int = 2) -> Iterator[A]:
    """Iterate ``items`` in a thread of their own, at most ``depth`` ahead; an exception there is raised here, in place."""
    ready: queue.Queue[A | _End[A]] = queue.Queue(maxsize=max(1, depth))
    stop = threading.Event()

    def feed() -> None:
        end: _End[A] = _End()
        try:
            for item in items:
                _put(ready, item, stop)
        except _Stopped:
            return
        except BaseException as error:  # handed to the consumer, who raises it
            end = _End(error)
        try:
            _put(ready, end, stop)
        except _Stopped:
            pass

    thread = threading.Thread(target=feed, daemon=True, name="ovskit-prefetch")
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()


def ordered_map(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """``map(function, items)`` over ``workers`` threads: same results, same order, for any number of workers.

    Items are pulled by a thread of their own, so a slow source does not hold back results that are ready; at most
    ``workers + 2`` items are under way. An exception in ``function`` or in ``items`` is raised where its result would stand.
    """
    pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="ovskit-worker")

    def submit() -> Iterator[Future[B]]:
        for item in items:
            yield pool.submit(function, item)

    try:
        for future in prefetch(submit(), depth=max(1, workers)):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
