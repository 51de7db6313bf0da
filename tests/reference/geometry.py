"""What a training view shows, point by point in exact fractions: slow, and nothing of it shared with ``core.train.views.geometry``."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


def source_of(view: Any, row: int, column: int, places: int) -> tuple[int, int] | None:
    """The (y, x) pixel of the photograph at the middle of a cell of the view's ``places`` × ``places``; None in the padding."""
    across = Fraction((2 * column + 1) * view.side, 2 * places)
    if view.mirrored:
        across = view.side - across
    down = Fraction((2 * row + 1) * view.side, 2 * places)
    y = (down + view.top) * view.height / view.scaled_height
    x = (across + view.left) * view.width / view.scaled_width
    if 0 <= y < view.height and 0 <= x < view.width:
        return int(y), int(x)
    return None


def warp(masks: np.ndarray, view: Any, places: int) -> np.ndarray:
    """Dense ``masks`` (n, height, width) at the points of the view: (n, places, places), 0 in the padding."""
    out = np.zeros((len(masks), places, places), masks.dtype)
    for row in range(places):
        for column in range(places):
            found = source_of(view, row, column, places)
            if found is not None:
                out[:, row, column] = masks[:, found[0], found[1]]
    return out


def visible(masks: np.ndarray, view: Any) -> np.ndarray:
    """How many pixels of each of ``masks`` (n, height, width) have their middle in the view: (n,)."""
    inside = np.zeros(masks.shape[1:], bool)
    for y in range(view.height):
        for x in range(view.width):
            down = Fraction(2 * y + 1, 2) * view.scaled_height / view.height - view.top
            across = Fraction(2 * x + 1, 2) * view.scaled_width / view.width - view.left
            inside[y, x] = 0 <= down < view.side and 0 <= across < view.side
    return (masks.astype(bool) & inside).sum((1, 2))
