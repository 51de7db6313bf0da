"""Where a network looks: an image at the size that is asked for, and the windows that slide over it.

Sliding windows are mmseg's, whose numbers the published tables are: steps of ``stride`` from the top left corner, the last window of each
axis pushed back so that it ends with the image. Where the image is smaller than the window the published codes differ (some pad); here
that side of the image is rounded to whole patches, and the window is as long as it is [choice].
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ovskit.core.runtime.errors import InputError

LARGEST = 16_384
"""Pixels of a side [choice]: beyond any memory, so that a typing error is refused at once."""


class Windows(NamedTuple):
    """An image of ``height`` × ``width`` pixels, the *canvas*, and windows of ``rows`` × ``columns`` pixels at every pair of ``tops`` and
    ``lefts``, row by row."""

    height: int
    width: int
    rows: int
    columns: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of every window."""
        return [(top, left) for top in self.tops for left in self.lefts]


def windows_of(height: int, width: int, *, short_side: int, window: int | None, stride: int, patch: int) -> Windows:
    """The windows over an image of ``height`` × ``width`` pixels, resized so that its shorter side has ``short_side``, its aspect kept.

    ``window`` is the side of a window, rounded to a multiple of ``patch`` pixels, the network's; None is one window that holds all.
    Raises InputError for an image that would have a side of more than ``LARGEST`` pixels.
    """
    scale = short_side / min(height, width)
    sides = [max(1, _round(side * scale)) for side in (height, width)]
    if max(sides) > LARGEST:
        large = f"{sides[1]}×{sides[0]}"
        raise InputError(
            f"{width}×{height} pixels would be {large} with a shorter side of {short_side}, and {LARGEST} a side are the limit"
        )
    most = LARGEST if window is None else patch * max(1, _round(window / patch))
    axes = [_axis(side, most, whole=window is None, stride=stride, patch=patch) for side in sides]
    (height, rows, tops), (width, columns, lefts) = axes
    return Windows(height, width, rows, columns, tops, lefts)


def _axis(side: int, window: int, *, whole: bool, stride: int, patch: int) -> tuple[int, int, tuple[int, ...]]:
    """Sides of canvas and window, and where windows begin."""
    if whole or side <= window:
        side = patch * max(1, _round(side / patch))
        return side, side, (0,)
    count = math.ceil((side - window) / stride) + 1
    return side, window, tuple(min(k * stride, side - window) for k in range(count))


def _round(x: float) -> int:
    """To the nearest whole number, halves up, as mmcv does."""
    return math.floor(x + 0.5)
