"""Refine the masks of one image: methods one after the other, specks and holes, and what is dropped afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovskit.core.formats.streams.soft_margin import KEY as SOFT
from ovskit.core.masks import forest
from ovskit.core.masks.components import clean_components
from ovskit.core.masks.overlap import iou_of_each
from ovskit.core.masks.runs import chosen, run_table, table_of
from ovskit.core.records import Mask, MaskSet, Rle, RunTable, UInt8
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.errors import InputError


@dataclass(slots=True)
class Dropped:
    """How many of ``masks`` masks were dropped, and why; of one image, or summed over several."""

    masks: int = 0
    moved: int = 0
    large: int = 0
    vanished: int = 0

    def add(self, other: Dropped) -> None:
        """Take in another count."""
        self.masks += other.masks
        self.moved += other.moved
        self.large += other.large
        self.vanished += other.vanished

    @property
    def total(self) -> int:
        return self.moved + self.large + self.vanished


def refine_masks(masks: MaskSet, pixels: UInt8, refiners: Sequence[Refiner], options: RefineOptions) -> tuple[MaskSet, Dropped]:
    """``masks`` after ``refiners`` in turn, in their order, with new outline, area and box; all else of a mask stays.

    ``pixels`` (H, W, 3) uint8 RGB is their image. The children of a dropped mask become those of its nearest ancestor that is
    kept, and ``level`` follows. A soft margin has done its work after the last of the refiners and goes: it speaks of the boundary
    that was. Raises InputError if a mask has not the size of its image, or its soft margin is damaged.
    """
    image = masks.image
    for mask in masks.masks:
        if (mask.rle.height, mask.rle.width) != (image.height, image.width):
            raise InputError(
                f"{image.file_name}: mask {mask.id} is {mask.rle.width}×{mask.rle.height}, its image {image.width}×{image.height}"
            )
    before = table_of(masks)
    refined, table = list(masks.masks), before
    for refiner in refiners:
        # One that has vanished stays so: nothing of it is left to refine.
        there = np.flatnonzero(table.areas)
        some, part = [refined[k] for k in there], chosen(table, there)
        rles = [mask.rle for mask in refined]
        for k, outline in zip(there.tolist(), refiner.refine(pixels, some, part), strict=True):
            rles[k] = outline
        refined, table = _outlined(refined, rles)
    if refiners:
        refined = [_without_soft(mask) for mask in refined]
    if options.min_component:
        refined, table = _outlined(refined, _cleaned(table, image.height * image.width, options))
    moved = iou_of_each(before, table) < options.min_iou
    vanished, large = table.areas == 0, table.areas > options.max_area * image.height * image.width
    dropped = Dropped(len(refined), int((moved & ~vanished).sum()), int((large & ~moved & ~vanished).sum()), int(vanished.sum()))
    return forest.kept_masks(MaskSet(image, tuple(refined), table), ~(vanished | moved | large)), dropped


def _outlined(masks: Sequence[Mask], rles: Sequence[Rle]) -> tuple[list[Mask], RunTable]:
    """``masks`` with the outlines ``rles``, and their runs."""
    table = run_table(rles)
    found = [
        replace(mask, rle=outline, area=area, bbox=(box[0], box[1], box[2], box[3]))
        for mask, outline, area, box in zip(masks, rles, table.areas.tolist(), table.bboxes.tolist(), strict=True)
    ]
    return found, table


def _cleaned(table: RunTable, pixels: int, options: RefineOptions) -> list[Rle]:
    smallest = options.min_component * pixels
    return [clean_components(table, k, min(smallest, area / 8), holes=options.fill_holes) for k, area in enumerate(table.areas.tolist())]


def _without_soft(mask: Mask) -> Mask:
    return mask if SOFT not in mask.extra else replace(mask, extra={key: value for key, value in mask.extra.items() if key != SOFT})
