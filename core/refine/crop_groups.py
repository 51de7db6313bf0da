"""Crops that are refined together, as many as fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovskit.core.masks.boxes import Box


def crop_groups(boxes: Sequence[Box], most_pixels: int) -> Iterator[list[int]]:
    """The places of boxes that have a pixel, in order, so many together as have at most ``most_pixels``; a larger one is by itself."""
    group: list[int] = []
    pixels = 0
    for k, (top, left, bottom, right) in enumerate(boxes):
        size = (bottom - top) * (right - left)
        if group and pixels + size > most_pixels:
            yield group
            group, pixels = [], 0
        if size:
            group.append(k)
            pixels += size
    if group:
        yield group
