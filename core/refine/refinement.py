"""A run of refiners over many images: what ``ovs-refine`` does to each of them, and what it has dropped in all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ovskit.core.formats.photographs.photographs import Photographs
from ovskit.core.records import MaskSet
from ovskit.core.refine.job import RefineJob
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.pipeline import Dropped, refine_masks
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.methods import ChosenMethod


class Refinement:
    """``methods`` in turn, ready to be used, and after them what ``options`` say. Raises what making a refiner raises."""

    def __init__(self, methods: Sequence[ChosenMethod], options: RefineOptions, job: RefineJob) -> None:
        self._methods, self._options = methods, options
        self._refiners: list[Refiner] = [chosen.method.run(job, chosen.options) for chosen in methods]
        self._dropped, self._lock = Dropped(), threading.Lock()

    def of(self, photographs: Photographs | None) -> Callable[[MaskSet], MaskSet]:
        """A function from the masks of an image among ``photographs`` (None will do if there are no methods) to the refined ones.

        It may be called from several threads. It raises what ``refine_masks`` and reading the image raise.
        """

        def work(masks: MaskSet) -> MaskSet:
            refiners = self._refiners if masks.masks else []
            pixels: Any = photographs.load(masks.image) if refiners and photographs is not None else None
            refined, gone = refine_masks(masks, pixels, refiners, self._options)
            with self._lock:
                self._dropped.add(gone)
            return refined

        return work

    def dropped(self) -> str | None:
        """What was dropped so far and why, as a sentence; None if nothing was."""
        gone = self._dropped
        moved = gone.moved, f"moved below IoU {self._options.min_iou:g}"
        large = gone.large, f"larger than {self._options.max_area:g} of the image"
        said = ", ".join(f"{number:,} {why}" for number, why in (moved, large, (gone.vanished, "vanished")) if number)
        return f"dropped {gone.total:,} of {gone.masks:,} masks: {said}" if said else None

    def facts(self) -> dict[str, Any]:
        """What provenance says of a method that is a model: ``model``, ``model_sha256`` and ``supervised``; of several, the last's."""
        facts: dict[str, Any] = {}
        for chosen, refiner in zip(self._methods, self._refiners, strict=True):
            if chosen.method.supervised or refiner.weights_sha256 is not None:
                facts = {"model": chosen.name, "model_sha256": refiner.weights_sha256, "supervised": chosen.method.supervised}
        return facts
