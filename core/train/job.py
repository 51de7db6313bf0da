"""What a recipe of ``ovs-train`` says of itself, what it is given beside its settings, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from ovskit.core.runtime.methods import GivenBy, Method
from ovskit.core.runtime.progress import Watch, unwatched
from ovskit.core.runtime.settings import Options
from ovskit.core.train.engine.options import TrainOptions

if TYPE_CHECKING:
    from ovskit.core.formats.pairs.options import PairInputs
    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.train.engine.devices import Devices
    from ovskit.core.train.engine.recipe import Recipe


T = TypeVar("T")


class NoFiles(Options):
    """For recipes that read nothing but what they learn from."""


NO_FILES = NoFiles()


@dataclass(frozen=True, slots=True)
class TrainMethod(Method):
    """A recipe: a subcommand of ``ovs-train``.

    ``options`` are its settings, all that decides what is learned beside the inputs, the seed and the optimizer. ``run`` takes a
    ``TrainJob`` and the settings and prepares what is trained. ``learns_from``: from photographs alone, from a file of masks and its
    photographs, or from image-text pairs. ``files`` is a group of flags: what else is read, such as weights to begin with. ``run_options``
    are the options of the run, by ``with_defaults`` with the recipe's own values. ``scored_as`` says how masks are found for ``--eval``: by
    clustering features of a backbone, or by predicting with a segmenter; None: it cannot be scored. ``about`` is the text of help,
    ``examples`` are (comment, command) pairs.
    """

    learns_from: Literal["photographs", "masks", "pairs"] = "photographs"
    files: type[Options] = NoFiles
    run_options: type[TrainOptions] = TrainOptions
    scored_as: Literal["backbone", "segmenter"] | None = None
    about: str = ""
    examples: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A run of a recipe but for its settings.

    ``folder`` is the run's. ``photographs`` are all that were named; those that cannot be used go to ``failures``. ``masks`` is the file to
    learn from, of recipes that do; ``pairs`` are what recipes of image-text pairs learn from, which have no photographs. ``files`` are the
    recipe's own. ``cache`` is where to keep what is prepared, if not in ``folder``. ``score`` is a function from what is trained, for a
    segmenter also the side of its images, to scores by name. ``pg`` is the run's provenance. ``given`` says which settings were said by
    whom; the others have their defaults.
    """

    folder: Path
    photographs: Sequence[Source]
    options: TrainOptions
    devices: Devices
    failures: Failures
    masks: Path | None = None
    pairs: PairInputs | None = None
    files: Any = NO_FILES
    cache: Path | None = None
    score: Callable[..., dict[str, float]] | None = None
    pg: Sequence[Mapping[str, Any]] = ()
    watch: Watch = unwatched
    given: Mapping[str, GivenBy] = field(default_factory=dict)

    def each_photograph(self, items: Iterable[T]) -> Iterator[T]:
        """``items``, one for each photograph, while they are prepared."""
        yield from self.watch(items, "preparing", total=len(self.photographs))


class Prepared(NamedTuple):
    """What is trained, and from how many photographs."""

    recipe: Recipe
    photographs: int
