"""What is asked of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ovskit.core.eval.metric import Images, Metric
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import REQUIRED, Options, option

_INTERVALS = Effect(lambda g: g["bootstrap"] > 0, "has no effect without resamples: add --bootstrap N")


class Compared(Options):
    """Which predictions to compare with which ground truth."""

    SECTION: ClassVar[str] = "Input"

    gt: str = option(
        REQUIRED,
        "The ground truth: COCO instances or panoptic, LVIS, masks of ovskit, SA-1B's files or folder; for miou also a folder of label "
        "maps; for accuracy a folder with a folder of images for each class, or JSON lines with file_name and label.",
        flag=True, metavar="GT", environment="never",
    )  # fmt: skip
    masks: tuple[str, ...] = option(
        (),
        "Predictions, a column each, later ones compared with the first; - (the default) is stdin. Folders of a JSON file for each image; "
        "for miou, of label maps; for accuracy, labels of images.",
        argument=True, metavar="MASKS.json",
    )  # fmt: skip
    images: Images = option(
        "all", "Score all images of the ground truth, or those that the predictions list.", flag=True, environment="never"
    )
    segments: str | None = option(
        None, "Where a panoptic ground truth's PNG files are.",
        flag=True, metavar="DIR", shown="GT without .json", environment="never", rare=True,
    )  # fmt: skip
    seeds: bool = option(False, "Show mean and standard deviation over predictions that differ in their random seed alone.", flag=True)

    @property
    def predictions(self) -> Sequence[str]:
        """Paths; stdin (``-``) if none is named."""
        return self.masks or ("-",)

    def check(self) -> None:
        """See ``Options``."""
        if [self.gt, *self.predictions].count("-") > 1:
            raise UsageError("stdin (-) can be read once: name a file for all but one of --gt and the predictions")
        if self.seeds and len(self.predictions) < 2:
            raise UsageError("--seeds: name the predictions of each seed, two files or more")


class Bootstrap(Options):
    """How intervals are made. Raises UsageError for a share that is not between 0 and 1."""

    SECTION: ClassVar[str] = "Intervals"

    resamples: int = option(0, "Add intervals from N resamples of the images.", flag="--bootstrap", low=0)
    confidence: float = option(
        0.95, "The share of resamples within an interval.", flag=True, metavar="P",
        effect=Effect(
            lambda g: g["bootstrap"] > 0 or not 0 < g["confidence"] < 1, "has no effect without intervals: add --bootstrap N"
        ),
    )  # fmt: skip
    seed: int = option(0, "Random seed of the resamples.", flag=True, low=0, effect=_INTERVALS)

    def check(self) -> None:
        """See ``Options``."""
        if not 0 < self.confidence < 1:
            raise UsageError(f"--confidence {self.confidence}: give a share between 0 and 1, such as 0.95")


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What is ``compared``, by which ``metric``, and the intervals to make of the scores. Raises UsageError for what makes no sense
    together."""

    metric: Metric
    compared: Compared
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        self.metric.check(self.predictions)

    @property
    def truth(self) -> str:
        """The path of the ground truth."""
        return self.compared.gt

    @property
    def predictions(self) -> Sequence[str]:
        """The paths of the predictions."""
        return self.compared.predictions
