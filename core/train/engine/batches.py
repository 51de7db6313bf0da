"""Batches made ahead of need, and brought to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ovskit.core.runtime.workers import ordered_map
from ovskit.core.train.engine.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Share:
    """One of the ``world`` batches of a step, of number ``rank``."""

    step: int
    rank: int
    world: int


def make_batches(
    recipe: Recipe, first: int, steps: int, *, process: int, processes: int, accumulate: int, workers: int, pin: bool
) -> Iterator[tuple[Share, Any]]:
    """This process's batches of the steps from ``first`` to below ``steps``, in order, made in ``workers`` threads.

    Each process has ``accumulate`` neighbouring ranks a step. ``pin`` makes them ready for a copy that does not wait.
    """
    world = processes * accumulate
    shares = (Share(step, rank, world) for step in range(first, steps) for rank in range(process * accumulate, (process + 1) * accumulate))

    def make(share: Share) -> tuple[Share, Any]:
        batch = recipe.batch(share.step, share.rank, share.world)
        return share, map_tensors(batch, torch.Tensor.pin_memory) if pin else batch

    return ordered_map(make, shares, workers)


def to_device(batch: Any, device: torch.device, *, channels_last: bool) -> Any:
    """The batch with all its tensors on the device; those of four dimensions in channels-last order, if asked for."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if channels_last and tensor.dim() == 4:
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    return map_tensors(batch, move)


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``value`` with ``function`` applied to every tensor in its dicts, lists and tuples (named ones too)."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, function) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, function) for item in value)
    return value


def count_samples(batch: Any) -> int:
    """The length of the first tensor's first dimension; 1 for a batch without such a tensor."""
    found: list[int] = []

    def look(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim():
            found.append(len(tensor))
        return tensor

    map_tensors(batch, look)
    return found[0] if found else 1
