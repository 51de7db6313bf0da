"""The masks of each photograph, from a masks file that is read once, beside photographs that are read in an order of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.logs import get_logger

log = get_logger("predict")


class MasksBeside:
    """Gives ``sources`` with their masks, in order.

    A photograph's masks are found by its name (``ImageNames``), by its id where the masks have none. The masks are read as far as they are
    needed: in memory are those that come before their turn, none where both are in one order. ``what`` is their file in messages.
    """

    def __init__(self, masks: MaskInputs, sources: Sequence[Source], what: str) -> None:
        self._sources, self._what = sources, what
        self._named = masks.header.named
        self._sets = masks.sets()
        self._names = ImageNames(sources, "the photographs")
        self._ids = {source.id: k for k, source in enumerate(sources)}
        self._waiting: dict[int, MaskSet] = {}
        self._first_stranger: str | None = None
        self._found = 0

    def __iter__(self) -> Iterator[tuple[Source, MaskSet | None]]:
        """Every photograph with its masks, None where the file does not have it. Raises InputError if it has none of them."""
        missing = 0
        for k, source in enumerate(self._sources):
            masks = self._masks_of(k)
            if masks is None and not self._found:
                raise self._of_others()
            missing += masks is None
            yield source, masks
        if missing:
            log.warning("%s has no masks of %d of the photographs: their patches are named without", self._what, missing)

    def _of_others(self) -> InputError:
        ours = show_path(self._sources[0].file_name)
        if self._first_stranger is None:
            return InputError(f"{self._what} has no masks of any photograph")
        theirs = show_path(self._first_stranger)
        return InputError(f"{self._what} has masks of other photographs, such as {theirs}; none is of those named, such as {ours}")

    def _masks_of(self, k: int) -> MaskSet | None:
        while k not in self._waiting:
            masks = next(self._sets, None)
            if masks is None:
                return None
            place = self._place(masks)
            if place is not None:
                self._waiting[place] = masks
                self._found += 1
            elif self._first_stranger is None:
                self._first_stranger = masks.image.file_name
        return self._waiting.pop(k)

    def _place(self, masks: MaskSet) -> int | None:
        if not self._named:
            return self._ids.get(masks.image.id)
        found = self._names.find(masks.image.file_name)
        return None if found is None else found[0]
