"""What is asked of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ovskit.core.eval.metric import Images, Metric
from ovskit.core.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: ``n`` resamples of the images (0: none), their random ``seed``, and the share ``confidence`` of resamples
    within an interval. Raises UsageError for a share that is not between 0 and 1."""

    n: int = 0
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence}: give a share between 0 and 1, such as 0.95")


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """Which predictions to compare with which ground truth, by which ``metric``, and what to make of the scores.

    ``truth`` and ``predictions`` are paths; one of them may be ``-``, stdin. ``images`` are those of the ground truth that
    are scored. ``segments`` is where a panoptic ground truth's PNG files are. ``seeds``: the predictions differ in their
    random seed alone. Raises UsageError for what makes no sense together.
    """

    metric: Metric
    truth: str
    predictions: Sequence[str]
    images: Images = "all"
    segments: str | None = None
    seeds: bool = False
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        if [self.truth, *self.predictions].count("-") > 1:
            raise UsageError("stdin (-) can be read once: name a file for all but one of --gt and the predictions")
        self.metric.check(self.predictions)
        if self.seeds and len(self.predictions) < 2:
            raise UsageError("--seeds: name the predictions of each seed, two files or more")
