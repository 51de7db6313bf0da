"""How the learning rate goes over a run: a linear warm-up, then constant, a cosine, or steps down."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "step", "constant")


def rate_share(
    step: int,
    *,
    schedule: str,
    steps: int,
    warmup: int = 0,
    final: float = 0.0,
    milestones: tuple[float, ...] = (0.9, 0.95),
    drop: float = 0.1,
) -> float:
    """The share of the learning rate, from 0 to 1, that update ``step`` (from 0) of ``steps`` is made with.

    During warm-up (k + 1)/``warmup``, so no update is made with zero. Then ``cosine`` is half a cosine from 1, at update
    ``warmup``, towards ``final``, which update ``steps`` would have (Loshchilov and Hutter, ICLR 2017, equation 5, without
    restarts); ``step`` is multiplied by ``drop`` at each of ``milestones``, shares of ``steps``; ``constant`` stays at 1.
    Raises ValueError for another schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r}: choose {', '.join(SCHEDULES)}")
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "step":
        return drop ** sum(step >= share * steps for share in milestones)
    return 1.0
