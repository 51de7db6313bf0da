"""Batches of prepared images for a device, halved where they do not fit its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

log = get_logger("batching")

A = TypeVar("A")
B = TypeVar("B")


def successes(results: Iterable[A | InputError | MissingInputError], failures: Failures) -> Iterator[A]:
    """The results that are not errors, in order; the errors go to ``failures`` as they come."""
    for result in results:
        if isinstance(result, InputError | MissingInputError):
            failures.handle(result)
        else:
            yield result


def batches(items: Iterable[A], size: int, like: Callable[[A], Any]) -> Iterator[list[A]]:
    """Batches of consecutive items, at most ``size`` in each, for all of which ``like`` is the same."""
    batch: list[A] = []
    for item in items:
        if batch and (len(batch) == size or like(item) != like(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def run_halving(batch: Sequence[A], run: Callable[[Sequence[A]], B], device: torch.device) -> Iterator[tuple[Sequence[A], B]]:
    """The results of ``run`` on the batch or, where that does not fit the GPU, on its halves, each with the part that it is of.

    Raises MemoryError if one item alone does not fit.
    """
    try:
        found = run(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise MemoryError(f"one image does not fit on {device}; use a smaller size") from None
        middle = len(batch) // 2
        log.info("a batch of %d does not fit on %s; halving it (--batch-size %d avoids this)", len(batch), device, middle)
    else:
        yield batch, found
        return
    # Not where the exception is handled: it holds on to what filled the memory.
    yield from run_halving(batch[:middle], run, device)
    yield from run_halving(batch[middle:], run, device)
