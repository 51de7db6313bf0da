"""What a metric of ``ovs-eval`` is.

A metric says how a ground truth and predictions are opened and gives every file of predictions ``Scores``, which take in one image after
the other and compute numbers for any weighting of the images, so that intervals by bootstrap, scores of each image and the whole come
from the same sums. ``Metric`` and ``Scores`` are protocols whose methods have a body where most metrics do the same: inherit from them,
and write what is different. A metric is one file with a ``METHOD``, whose ``run`` makes it of its options, and a name in ``eval.registry``.

Nothing here imports more than the standard library before it is asked for.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ovskit.core.formats.labels.maps import LabelTruth
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.formats.truth.ground_truth import GroundTruth
    from ovskit.core.formats.truth.image_classes import ImageClasses
    from ovskit.core.records import ImageLabels, LabelMap, MaskSet
    from ovskit.core.runtime.failures import Failures

    Float64 = npt.NDArray[np.float64]
    Weights = npt.NDArray[np.int32]

Images = Literal["all", "listed"]
"""Which images of the ground truth are scored: all, or those that the predictions list."""

Table = tuple[list[str], list[list[str]]]
"""Column titles, and rows of text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a metric, a row of its table.

    ``name`` is its key in JSON, ``title`` what the table calls it (the name, if empty). ``kind``: a fraction in [0, 1], which the table
    shows in percent, a number, or a whole number. ``resampled``: whether a bootstrap over images gives it an interval.
    """

    name: str
    title: str = ""
    kind: Literal["fraction", "number", "whole"] = "fraction"
    resampled: bool = True

    def text(self, value: float | None, sign: str = "") -> str:
        """A value of it as the table shows it, a dash for None; ``sign`` is that of a format, "+" for a difference."""
        if value is None:
            return "–"
        if self.kind == "whole":
            return f"{value:{sign}z,.0f}"
        return f"{value if self.kind == 'number' else 100 * value:{sign}z.2f}"

    def plain(self, value: float | None) -> float | int | None:
        """A value of it as JSON has it."""
        return int(value) if value is not None and self.kind == "whole" else value


@dataclass(frozen=True, slots=True)
class Predictions:
    """Opened predictions: the header of their file, and the masks, label maps or labels of its images, one after the other.

    ``check`` is called when all have been scored; it raises InputError if they, or the ground truth, were probably read with the wrong
    meaning.
    """

    header: MasksHeader
    images: Iterator[MaskSet] | Iterator[LabelMap] | Iterator[ImageLabels]
    check: Callable[[], None] = lambda: None


class Scores(Protocol):
    """The scores of one set of predictions: sums over its images.

    ``work`` runs in any thread, in any order of images; ``add`` then takes in what it made, in one thread and in the order in which
    the predictions come. The numbers must not depend on that order. When all are in, ``check`` is called, then the others.
    """

    @property
    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """The numbers, in the order to show them in."""

    @abstractmethod
    def work(self, truth: Any, predictions: Any) -> Any:
        """What ``add`` needs of one image. ``predictions`` is a ``MaskSet`` without a mask where they do not list the image.

        Raises InputError for masks that cannot be scored.
        """

    @abstractmethod
    def add(self, position: int, result: Any) -> None:
        """Take in what ``work`` made of the image at ``position`` of the ground truth."""

    def check(self, truth: str, predictions: str) -> None:
        """Raises InputError, naming the ``truth`` or the ``predictions``, if there is nothing to score, or they cannot be scored."""

    def warnings(self, predictions: str) -> list[str]:
        """What a reader of the scores should know, a line each; ``predictions`` names them."""
        return []

    def cells(self) -> int:
        """How many numbers ``values`` holds for every column of its weights."""
        return len(self.rows)

    @abstractmethod
    def values(self, weights: Weights) -> Float64:
        """Every number, float64 (rows, b), where the image at position k counts ``weights[k]`` (images, b) times; NaN if undefined."""

    @abstractmethod
    def values_by_image(self, images: int) -> Float64:
        """Every number of every image by itself, float64 (rows, ``images``)."""

    def to_json(self) -> dict[str, Any]:
        """The values of a file in JSON besides its numbers."""
        return {}


class Metric(Protocol):
    """A metric with its ``options``.

    ``name`` is that of ``--metric``. ``masks``: both sides are masks, whose numbers stand in the table and in JSON. ``absent`` is what
    images of the ground truth count as that the predictions do not list.
    """

    name: ClassVar[str]
    masks: ClassVar[bool] = True
    absent: ClassVar[str] = "without masks"

    @property
    @abstractmethod
    def options(self) -> Any:
        """Its options."""

    def check(self, predictions: Sequence[str]) -> None:
        """Raises UsageError for options that make no sense with predictions at these paths."""

    def open_truth(
        self, path: str, *, segments: str | None, partial: bool, failures: Failures | None
    ) -> GroundTruth | LabelTruth | ImageClasses:
        """The ground truth at ``path``: by default of masks.

        ``segments`` is where a panoptic file's PNG files are. ``partial``: only images that the predictions list are scored, so others may
        be missing. Raises UsageError, InputError and MissingInputError.
        """
        from ovskit.core.formats.truth.ground_truth import open_ground_truth

        return open_ground_truth(path, segments=segments, failures=failures)

    def truth_warnings(self, truth: Any) -> Sequence[str]:
        """What a reader of the scores should know of the ground truth, a line each."""
        return ()

    def open_predictions(self, path: str, what: str, truth: Any, failures: Failures | None) -> AbstractContextManager[Predictions]:
        """The predictions at ``path``, called ``what``, to be compared with ``truth``: by default masks, see ``open_mask_predictions``."""
        return open_mask_predictions(path, what, failures)

    @abstractmethod
    def scores(self, truth: Any, header: MasksHeader, what: str) -> Scores:
        """An accumulator for predictions that are called ``what``, whose file has the ``header``.

        Raises InputError if they cannot be compared with ``truth``.
        """

    def settings(self, truth: Any) -> dict[str, Any]:
        """How scores are made, as JSON says it."""
        return {}

    def contents(self, scores: Any, masks: int) -> str:
        """What is compared in the images, with its number, in the words of the caption; ``masks`` are those of the ground truth."""
        return f"{masks:,} masks in the ground truth"

    def remarks(self, truth: Any, scores: Any) -> Sequence[str]:
        """More remarks for the caption, half a sentence each."""
        return ()

    def tables(self, files: Sequence[tuple[str, Any]]) -> Sequence[Table]:
        """Tables besides that of the numbers; ``files`` are what each is called, and its scores."""
        return ()


@contextmanager
def open_mask_predictions(path: str, what: str, failures: Failures | None) -> Iterator[Predictions]:
    """Masks in one file (``-`` is stdin), or in a folder of a JSON file for each image, as SA-1B and SAM's own script have them.

    ``what`` names them in messages. Raises InputError and MissingInputError for what cannot be read; what cannot be used of it goes to
    ``failures`` if given.
    """
    from ovskit.core.formats.streams.masks import MasksHeader, open_masks
    from ovskit.core.formats.truth.ground_truth import open_ground_truth
    from ovskit.core.runtime.output import open_input

    if os.path.isdir(path):
        folder = open_ground_truth(path, failures=failures)
        yield Predictions(MasksHeader(exif=folder.exif, categories=()), (folder.load(k) for k in range(len(folder))))
        return
    with open_input(path) as stream:
        yield Predictions(*open_masks(stream, what, failures))
