"""Refine the masks of one image: methods one after the other, specks and holes, and what is dropped afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ovskit.core.formats.streams.soft_margin import KEY as SOFT
from ovskit.core.masks import rle
from ovskit.core.masks.components import clean_components
from ovskit.core.masks.rle import RunTable
from ovskit.core.records import Mask, MaskSet, Rle, UInt8
from ovskit.core.refine.options import RefineOptions
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.errors import InputError


@dataclass(slots=True)
class Dropped:
    """Of ``masks`` masks, how many went and why. A sum over images is one too."""

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
    refined = list(masks.masks)
    for refiner in refiners:
        # One that has vanished stays so: nothing of it is left to refine.
        there = [k for k, mask in enumerate(refined) if mask.area]
        for k, mask in zip(there, _measured([refined[k] for k in there], refiner.refine(pixels, [refined[k] for k in there])), strict=True):
            refined[k] = mask
    if refiners:
        refined = [_without_soft(mask) for mask in refined]
    refined = _cleaned(refined, image.height * image.width, options)
    dropped = Dropped(masks=len(refined))
    kept: dict[int, Mask] = {}
    for before, after in zip(masks.masks, refined, strict=True):
        if not after.area:
            dropped.vanished += 1
        elif _iou(before.rle, after.rle) < options.min_iou:
            dropped.moved += 1
        elif after.area > options.max_area * image.height * image.width:
            dropped.large += 1
        else:
            kept[before.id] = after
    return MaskSet(image, _adopted(masks, kept)), dropped


def _measured(masks: Sequence[Mask], rles: Sequence[Rle]) -> list[Mask]:
    """``masks`` with the outlines ``rles``."""
    table = RunTable(rles)
    return [
        replace(mask, rle=outline, area=area, bbox=(box[0], box[1], box[2], box[3]))
        for mask, outline, area, box in zip(masks, rles, table.areas.tolist(), table.bboxes.tolist(), strict=True)
    ]


def _cleaned(masks: Sequence[Mask], pixels: int, options: RefineOptions) -> list[Mask]:
    if not options.min_component:
        return list(masks)
    table = RunTable([mask.rle for mask in masks])
    smallest = options.min_component * pixels
    return _measured(
        masks,
        [clean_components(table, k, min(smallest, mask.area / 8), holes=options.fill_holes) for k, mask in enumerate(masks)],
    )


def _without_soft(mask: Mask) -> Mask:
    return mask if SOFT not in mask.extra else replace(mask, extra={key: value for key, value in mask.extra.items() if key != SOFT})


def _iou(before: Rle, after: Rle) -> float:
    if before == after:
        return 1.0
    return float(rle.iou(RunTable([before]), RunTable([after]))[0, 0])


def _adopted(masks: MaskSet, kept: Mapping[int, Mask]) -> tuple[Mask, ...]:
    """The kept masks, each under its nearest ancestor that is kept."""
    parents = {mask.id: mask.parent_id for mask in masks.masks}
    found: dict[int, Mask] = {}
    for number, mask in kept.items():
        above = mask.parent_id
        while above is not None and above not in kept:
            above = parents[above]
        found[number] = replace(mask, parent_id=above)
    for number, mask in found.items():
        if "level" in mask.extra and len(kept) < len(masks.masks):
            level, above = 0, mask.parent_id
            while above is not None:
                level, above = level + 1, found[above].parent_id
            found[number] = replace(mask, extra={**mask.extra, "level": level})
    return tuple(found.values())
