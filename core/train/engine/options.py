"""The options of a run: what does not depend on what is trained."""

from __future__ import annotations

from dataclasses import dataclass

from ovskit.core.runtime.errors import UsageError
from ovskit.core.train.engine.schedule import SCHEDULES

OPTIMIZERS = {"adamw": 2, "adan": 3}
"""The optimisers, and how many betas they have."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How long, how fast and how carefully to train. Raises UsageError for values that make no sense."""

    # How long. A run that ``minutes`` or ``stop_after`` (a step) end early goes on with ``resume``.
    steps: int
    minutes: float | None = None
    stop_after: int | None = None
    seed: int = 0

    # AdamW (Loshchilov and Hutter, ICLR 2019; two betas) or Adan (Xie et al., TPAMI 2024; three), and the learning rate, see
    # ``schedule.rate_share``.
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 0
    schedule: str = "cosine"
    final_share: float = 0.0
    milestones: tuple[float, ...] = (0.9, 0.95)
    drop: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip_norm: float | None = None

    # How to compute. ``accumulate`` batches of each process make an update; ``workers`` threads make batches.
    accumulate: int = 1
    device: str = "auto"
    precision: str = "auto"
    channels_last: bool = False
    compile: bool = False
    workers: int = 1

    # What to keep, every so many steps; ``eval_every`` 0 never evaluates.
    checkpoint_every: int = 1000
    log_every: int = 50
    eval_every: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "workers", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: give at least 1")
        for name in ("warmup", "eval_every", "seed", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} {getattr(self, name)}: give at least 0")
        for name in ("learning_rate", "minutes", "stop_after", "clip_norm", "epsilon"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name)}: give a positive number")
        if not 0 <= self.final_share <= 1:
            raise UsageError(f"final_share {self.final_share}: give a share of the learning rate, from 0 to 1")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer {self.optimizer}: choose {', '.join(OPTIMIZERS)}")
        count = OPTIMIZERS[self.optimizer]
        if len(self.betas) != count or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas {self.betas}: {self.optimizer} has {count}, from 0 to below 1")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule {self.schedule}: choose {', '.join(SCHEDULES)}")
