"""Leaving masks out of an image's without leaving others without a way up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ovskit.core.records import Mask, MaskSet


def keep_masks(masks: MaskSet, wanted: Callable[[Mask], bool]) -> MaskSet:
    """The masks that are ``wanted``, in order, each below its nearest ancestor that stays; ``level``, where there is one, made anew."""
    kept = {mask.id: mask for mask in masks.masks if wanted(mask)}
    if len(kept) == len(masks.masks):
        return masks
    parents = {mask.id: mask.parent_id for mask in masks.masks}

    def ancestor(number: int) -> int | None:
        above = parents[number]
        while above is not None and above not in kept:
            above = parents[above]
        return above

    found = []
    for number, mask in kept.items():
        above = ancestor(number)
        extra = mask.extra
        if "level" in extra:
            level, place = 0, above
            while place is not None:
                level, place = level + 1, ancestor(place)
            extra = {**extra, "level": level}
        found.append(replace(mask, parent_id=above, extra=extra))
    return MaskSet(masks.image, tuple(found))
