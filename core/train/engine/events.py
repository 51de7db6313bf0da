"""What a run tells whoever watches it. Only process 0 does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Started:
    """The first update to be made is number ``step`` + 1 of ``steps``; ``processes`` compute on ``device`` in ``precision``."""

    step: int
    steps: int
    device: str
    precision: str
    processes: int


@dataclass(frozen=True, slots=True)
class Updated:
    """Update number ``step`` is made."""

    step: int


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of training of the log: means of ``losses`` and rates since the line before it.

    ``waiting`` is the share of the time that updates waited for their batch: 0 where drawing samples keeps up.
    """

    step: int
    seconds: float
    samples_per_second: float
    waiting: float
    learning_rate: float
    gradient_norm: float
    losses: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Scores after update number ``step``."""

    step: int
    seconds: float
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint after update number ``step`` is in place."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ends before its last step; ``reason`` is minutes, stop_after or signal. Its checkpoint is in place."""

    step: int
    steps: int
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All steps are made and the model is written to ``folder``."""

    step: int
    folder: Path


Event = Started | Updated | Logged | Evaluated | Saved | Stopped | Finished
