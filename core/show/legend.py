"""Categories on a picture: a map of them over a photograph, and the legend that says which colour is which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.categories import Category, CategoryMap
from ovskit.core.show.lettering import GROUND, INK, SOFT, fitting, font_of
from ovskit.core.show.overlay import Paint, painted
from ovskit.core.show.scene import percent

_FONT = 13
_ROW = 20  # of the legend, in pixels where letters are of 13
_SWATCH = 12
_MARGIN = 10
_GAP = 22  # between columns
_LONGEST = 200  # a longer name is cut
_PIXELS_PER_SIZE = 1000  # letters grow with larger pictures


def category_overlay(
    image: UInt8, shown: CategoryMap, *, opacity: float = 0.55, outlines: bool = True, thickness: int | None = None
) -> UInt8:
    """``image`` (H, W, 3) uint8 RGB with a map of categories in their colours over it; same shape and type, the input is not changed.

    Lines are where one category or none meets another. The background has a quarter of the ``opacity``, so that it differs from
    what has no category. Raises InputError if the image has not the size of the map, UsageError for an opacity outside of [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity must be from 0 to 1, not {opacity}")
    if image.shape != (*shown.labels.shape, 3):
        height, width = shown.labels.shape
        raise InputError(f"a map of {width}×{height} pixels cannot be drawn on a picture of {image.shape[1]}×{image.shape[0]}")
    if not shown.swatches:
        return image.copy()
    rgb = np.array([swatch.category.rgb for swatch in shown.swatches], np.uint8)
    faint = np.array([swatch.category.is_background for swatch in shown.swatches], np.bool_)
    return painted(image, shown.labels, Paint(rgb, np.zeros(len(rgb), np.bool_), faint), opacity, outlines, thickness)


def legend_of(shown: CategoryMap) -> list[tuple[Category, str]]:
    """The legend of one picture: the categories that can be seen in it, with their share of its pixels, larger first."""
    return [(swatch.category, percent(swatch.pixels / shown.labels.size)) for swatch in shown.swatches if swatch.pixels]


def with_legend(picture: UInt8, shown: CategoryMap) -> UInt8:
    """``picture`` (H, W, 3) with the map's legend below it, (H + n, W, 3); as it is where there is nothing to say."""
    size = max(1.0, max(picture.shape) / _PIXELS_PER_SIZE)
    return np.concatenate([picture, legend_strip(legend_of(shown), picture.shape[1], size=size)])


def legend_height(lines: Sequence[tuple[Category, str]], width: int, *, size: float = 1.0, margin: int = _MARGIN) -> int:
    """How high ``legend_strip`` is, in pixels."""
    return _Plan(lines, width, size, margin).height if lines else 0


def legend_strip(lines: Sequence[tuple[Category, str]], width: int, *, size: float = 1.0, margin: int = _MARGIN) -> UInt8:
    """A swatch, the name and what is said of each category, in as many columns as ``width`` holds, read downwards.

    uint8 (height, ``width``, 3); the height is 0 without lines. Letters are ``size`` times 13 pixels. Names too long for a
    column are cut at their end.
    """
    plan = _Plan(lines, width, size, margin) if lines else None
    strip = np.empty((plan.height if plan else 0, width, 3), np.uint8)
    strip[:] = GROUND
    if plan is None:
        return strip
    canvas = Pillow.fromarray(strip)
    pen = ImageDraw.Draw(canvas)
    for k, (category, said) in enumerate(lines):
        left, top = plan.left + k // plan.rows * (plan.cell + plan.gap), plan.margin + k % plan.rows * plan.row
        box = (left, top + (plan.row - plan.side) // 2, left + plan.side - 1, top + (plan.row + plan.side) // 2 - 1)
        pen.rectangle(box, fill=category.rgb)
        middle, right = top + plan.row / 2, left + plan.cell
        room = plan.cell - plan.indent - plan.indent // 2 - int(plan.font.getlength(said))
        if room < plan.indent:  # a very narrow picture: the name is what matters
            room, said = plan.cell - plan.indent, ""
        pen.text((left + plan.indent, middle), fitting(category.name, plan.font, room, at_end=True), INK, plan.font, "lm")
        pen.text((right, middle), said, SOFT, plan.font, "rm")
    return np.asarray(canvas)


class _Plan:
    """Where the lines of a legend stand: sizes in pixels, and ``rows`` to a column."""

    def __init__(self, lines: Sequence[tuple[Category, str]], width: int, size: float, margin: int) -> None:
        self.font = font_of(round(_FONT * size))
        self.row, self.side, self.gap = round(_ROW * size), round(_SWATCH * size), round(_GAP * size)
        self.indent = round(1.6 * self.side)
        self.left, self.margin = margin, round(_MARGIN * size)
        room = max(1, width - 2 * margin)
        names = max(self.font.getlength(fitting(category.name, self.font, round(_LONGEST * size), at_end=True)) for category, _ in lines)
        said = max(self.font.getlength(text) for _, text in lines)
        self.cell = min(room, round(self.indent + names + self.indent // 2 + said))
        columns = max(1, min(len(lines), (room + self.gap) // (self.cell + self.gap)))
        self.rows = -(-len(lines) // columns)
        self.height = 2 * self.margin + self.rows * self.row
