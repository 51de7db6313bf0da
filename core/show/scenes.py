"""Mask files, photographs and ground truth brought together, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ovskit.core.formats.labels.named_maps import NamedMaps, masks_of_map
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import Photographs
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.records import Image, LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map
from ovskit.core.show.agreement import Agreement, SameClasses, agreement
from ovskit.core.show.mask_files import Entry, MaskFile, in_step, masks_of
from ovskit.core.show.scene import Scene
from ovskit.core.show.truth_matches import judge


class Scenes:
    """The scenes of one leading mask file and the files beside it, in the order of the leading one (``in_step``).

    ``lead`` is the leading file's masks, ``what`` its name for messages, ``named`` whether its images have names, and ``place`` its place
    among the panels, None where nothing leads and the images are those of ``others`` alone; ``photographs`` are those of the
    leading file, then of ``others``. ``truth`` is the ground truth, of which a mask counts as found ``at`` this IoU; or it is one of label
    ``maps``, a panel after those of the files, and ``same`` says for each file which of its categories are the classes of the maps, None
    where no category is. An image that cannot be used goes to ``failures``. A few images are in memory at once, whatever the number of
    ``workers``, and results do not depend on it. To be iterated once.

    Afterwards ``lacking`` says how many of them the ground truth does not have, and ``unused`` how many images only the ground
    truth has (0 if the scenes were not read to their end).
    """

    def __init__(
        self,
        lead: Iterable[MaskSet],
        what: str,
        *,
        photographs: Sequence[Photographs],
        failures: Failures,
        others: Sequence[MaskFile] = (),
        place: int | None = 0,
        named: bool = True,
        truth: GroundTruth | None = None,
        at: float = 0.5,
        maps: NamedMaps | None = None,
        same: Sequence[SameClasses | None] = (),
        workers: int = 1,
    ) -> None:
        self._lead, self._what, self._others, self._place, self._named = lead, what, others, place, named
        self._photographs, self._failures, self._workers = photographs, failures, workers
        self._truth, self._at, self._maps, self._same = truth, at, maps, same
        self._compared = truth if maps is None else maps.maps
        self._used: set[int] = set()
        self._ended = False
        self.lacking = 0

    @property
    def unused(self) -> int:
        """How many images of the ground truth no mask file has."""
        return len(self._compared) - len(self._used) if self._compared is not None and self._ended else 0

    def __iter__(self) -> Iterator[Scene]:
        for result in ordered_map(self._load, in_step(self._lead, self._others, named=self._named), self._workers):
            if isinstance(result, InputError | MissingInputError):
                self._failures.handle(result)
                continue
            scene, found = result
            if self._compared is not None and found is None:
                self.lacking += 1
            elif self._compared is not None and found is not None:
                if found in self._used:
                    self._failures.handle(self._ambiguous(scene.image, self._compared.images[found]))
                    continue
                self._used.add(found)
            yield scene
        self._ended = True

    def _load(self, entry: Entry) -> tuple[Scene, int | None] | InputError | MissingInputError:
        try:
            lead, *panels = masks_of(entry, self._others, self._what)
            if self._place is not None:
                panels.insert(self._place, lead)
            there = ([] if self._place is None else [lead is not None]) + [place is not None for place in entry.places]
            match = None if self._compared is None else self._compared.find(entry.image, named=entry.named)
            found = None if match is None else match.index
            image, named = entry.image, entry.named
            if self._compared is not None and found is not None and not entry.named and self._compared.named:
                image, named = replace(image, file_name=self._compared.images[found].file_name), True
            pixels = self._photographs[there.index(True)].load(image, named=named)
            if self._maps is not None:
                shown, agreements = self._compare(image, panels, found)
                return Scene(image, pixels, (*panels, shown), agreements=agreements), found
            truths = () if self._truth is None or found is None else judge(panels, self._truth.load(found), self._at)
            return Scene(image, pixels, tuple(panels), truths), found
        except (InputError, MissingInputError) as error:
            return error

    def _ambiguous(self, image: Image, other: Image) -> InputError:
        assert self._compared is not None
        name = show_path(image.file_name)
        return InputError(f"{name}: {self._compared.what} has one image, {show_path(other.file_name)}, that fits it and another one")

    def _compare(
        self, image: Image, panels: Sequence[MaskSet | None], found: int | None
    ) -> tuple[MaskSet | None, tuple[Agreement | None, ...]]:
        """The label map of an image as masks, and how far each of the panels agrees with it."""
        if self._maps is None or found is None:
            return None, tuple(None for _ in panels)
        truth = LabelMap(image, self._maps.load(found).labels)
        pairs = zip(panels, self._same, strict=True)
        return masks_of_map(truth), tuple(None if p is None or s is None else agreement(p, truth, s) for p, s in pairs)
