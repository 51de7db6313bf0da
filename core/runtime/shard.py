"""Which part of the sorted input a run works on: ``--shard I/N``, or ``auto`` from SLURM; and which parts make a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.logs import get_logger

log = get_logger("shard")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """Zero-based ``index`` of ``count`` shards; shard I/N holds ``items[I::N]`` of the sorted input."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def stated(self) -> Shard | None:
        """The shard as a header states it: None for the only shard of one, which is the whole."""
        return self if self.count > 1 else None

    def pick(self, items: Sequence[T]) -> Sequence[T]:
        """This shard's items, in order."""
        return items[self.index :: self.count]


def shard_of(value: object) -> Shard | None:
    """The shard that a header names as text, None where the header names no shard. Raises ValueError for a text that is not a shard."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value) if isinstance(value, str) else None
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"{value!r} is not a shard")
    return Shard(int(match[1]), int(match[2]))


def join_shards(shards: Sequence[Shard | None], names: Sequence[str]) -> Shard | None:
    """What the files ``names``, whose headers state ``shards``, are together: the shard of a single file, None for the whole.

    Raises InputError if some are shards and some are not, if they are of different counts, if one is there twice or one is missing.
    """
    if len(shards) == 1 or all(shard is None for shard in shards):
        return shards[0] if len(shards) == 1 else None
    places: dict[int, str] = {}
    first, name = next((shard, name) for shard, name in zip(shards, names, strict=True) if shard is not None)
    for shard, other in zip(shards, names, strict=True):
        if shard is None:
            raise InputError(f"{name} is shard {first}, but {other} is not a shard: only the shards of one run are joined")
        if shard.count != first.count:
            raise InputError(f"{name} is shard {first}, but {other} is {shard}: only the shards of one run are joined")
        if shard.index in places:
            raise InputError(f"{places[shard.index]} and {other} are both shard {shard}: each is joined once")
        places[shard.index] = other
    missing = [str(Shard(k, first.count)) for k in range(first.count) if k not in places]
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(f"of the {first.count} shards {listed} {'is' if len(missing) == 1 else 'are'} missing: name all of them, or one")
    return None


def parse_shard(text: str | None, environ: Mapping[str, str] | None = None) -> Shard:
    """Read ``I/N`` (zero-based, I < N) or ``auto``; None is the whole input.

    ``auto`` combines a SLURM array with the tasks of a step: I = array index · step tasks + task, N = array size · step
    tasks. The array must be a whole one, whose indices begin at 0 or 1: tasks that are sent again by themselves make an array of
    their own, which does not state how many there were. Raises UsageError with the valid form.
    """
    if text is None:
        return Shard()
    if text == "auto":
        return _from_slurm(os.environ if environ is None else environ)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise UsageError(f"--shard {text}: give I/N with 0 <= I < N (such as 0/4), or auto under SLURM")
    index, count = int(match[1]), int(match[2])
    if index >= count:
        raise UsageError(f"--shard {text}: shards count from zero, so I must be below N (0/{count} to {count - 1}/{count})")
    return Shard(index, count)


def _from_slurm(environ: Mapping[str, str]) -> Shard:
    def number(key: str, default: int) -> int:
        value = environ.get(key, "")
        if value and not value.isdigit():
            raise UsageError(f"--shard auto: {key}={value} is not a number")
        return int(value) if value else default

    if not any(key in environ for key in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID")):
        raise UsageError("--shard auto: neither SLURM_ARRAY_TASK_ID nor SLURM_PROCID is set; give --shard I/N outside SLURM")
    task, array_index, array_count = environ.get("SLURM_ARRAY_TASK_ID", ""), 0, 1
    if task:
        # SLURM takes the step from the text of --array, so it is 1 for a list of indices.
        first, step = number("SLURM_ARRAY_TASK_MIN", 0), max(1, number("SLURM_ARRAY_TASK_STEP", 1))
        array_count = number("SLURM_ARRAY_TASK_COUNT", 0)
        if not array_count:
            raise UsageError("--shard auto: SLURM_ARRAY_TASK_ID is set, but not SLURM_ARRAY_TASK_COUNT; give --shard I/N")
        last = number("SLURM_ARRAY_TASK_MAX", first + (array_count - 1) * step)
        array_index, off = divmod(number("SLURM_ARRAY_TASK_ID", first) - first, step)
        if first > 1 or last != first + (array_count - 1) * step or off or not 0 <= array_index < array_count:
            raise UsageError(
                f"--shard auto: task {task} belongs to an array of {array_count} from {first} to {last}, which is not a whole array "
                "(0 to N-1, or 1 to N); for tasks that are submitted again alone, give --shard $SLURM_ARRAY_TASK_ID/N, counted from 0"
            )
    tasks = number("SLURM_STEP_NUM_TASKS", 1)
    if task and array_count * tasks == 1:
        log.warning("--shard auto: an array of one task works on everything; a task submitted again alone needs --shard %d/N", array_index)
    shard = Shard(array_index * tasks + number("SLURM_PROCID", 0), array_count * tasks)
    if shard.index >= shard.count:
        raise UsageError(f"--shard auto: SLURM's variables give shard {shard}, which does not exist; give --shard I/N")
    return shard
