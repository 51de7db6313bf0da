"""Mask files, photographs and ground truth brought together, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ovskit.core.formats.ground_truth import GroundTruth
from ovskit.core.formats.photographs import load_photograph
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map
from ovskit.core.show.found import Truth, judge
from ovskit.core.show.mask_files import Entry, MaskFile, in_step, masks_of
from ovskit.core.show.scene import Scene


class Scenes:
    """The scenes of one leading mask file and the files beside it, in the order of the leading one (``in_step``).

    ``lead`` is the leading file's masks, ``what`` its name for messages and ``place`` its place among the panels; ``roots`` are
    the folders of the photographs, the leading file's first, then those of ``others``. ``truth`` is the ground truth, of
    which a mask counts as found ``at`` this IoU. An image that cannot be used goes to ``failures``. A few images are in
    memory at once, whatever the number of ``workers``, and results do not depend on it. To be iterated once.

    Afterwards ``lacking`` says how many of them the ground truth does not have, and ``unused`` how many images only the ground
    truth has (0 if the scenes were not read to their end).
    """

    def __init__(
        self,
        lead: Iterable[MaskSet],
        what: str,
        *,
        roots: Sequence[str],
        failures: Failures,
        others: Sequence[MaskFile] = (),
        place: int = 0,
        truth: GroundTruth | None = None,
        at: float = 0.5,
        workers: int = 1,
        max_pixels: int = 178_956_970,
    ) -> None:
        self._lead, self._what, self._others, self._place = lead, what, others, place
        self._roots, self._failures, self._workers, self._max_pixels = roots, failures, workers, max_pixels
        self._truth, self._at = truth, at
        self._used: set[int] = set()
        self._ended = False
        self.lacking = 0

    @property
    def unused(self) -> int:
        """How many images of the ground truth no mask file has."""
        return len(self._truth) - len(self._used) if self._truth is not None and self._ended else 0

    def __iter__(self) -> Iterator[Scene]:
        for result in ordered_map(self._load, in_step(self._lead, self._others), self._workers):
            if isinstance(result, InputError | MissingInputError):
                self._failures.handle(result)
                continue
            scene, found = result
            if self._truth is not None and found is None:
                self.lacking += 1
            elif found is not None:
                self._used.add(found)
            yield scene
        self._ended = True

    def _load(self, entry: Entry) -> tuple[Scene, int | None] | InputError | MissingInputError:
        try:
            lead, *panels = masks_of(entry, self._others, self._what)
            panels.insert(self._place, lead)
            file = 0 if lead is not None else 1 + next(k for k, place in enumerate(entry.places) if place is not None)
            pixels = load_photograph(entry.image, self._roots[file], max_pixels=self._max_pixels)
            truths, found = self._judge(entry, panels)
            return Scene(entry.image, pixels, tuple(panels), truths), found
        except (InputError, MissingInputError) as error:
            return error

    def _judge(self, entry: Entry, panels: Sequence[MaskSet | None]) -> tuple[tuple[Truth, ...], int | None]:
        match = None if self._truth is None else self._truth.find(entry.image)
        if self._truth is None or match is None:
            return (), None
        return judge(panels, self._truth.load(match.index), self._at), match.index
