"""The soft margin of a mask: how clearly the cells of a coarse grid are on its side, or on the other.

A mask cut from a coarse map is sure of its middle and not of its edge. The optional key ``soft`` of an annotation keeps what the cut
took away, so that a stage after it can start from the map:

    "soft": {"grid": [rows, columns], "at": [row, column], "size": [rows, columns], "step": 0.0039, "values": "base64 …"}

``grid`` cells cover the whole image, whatever its aspect; ``values`` are int8, row by row, of the ``size`` cells from ``at`` on; a cell's
margin is its value times ``step``, above 0 on the mask's side. A reader that does not know the key has a COCO annotation like any other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.rle_boxes import Box
from ovskit.core.runtime.errors import InputError

Float32 = npt.NDArray[np.float32]

KEY = "soft"
_MOST = 127
_LARGEST_GRID = 1 << 16  # cells along a side: beyond it is no map of patches


@dataclass(frozen=True, slots=True)
class SoftMargin:
    """``values`` (rows, columns) float32 of the cells from ``at`` (row, column) on, of a ``grid`` (rows, columns) over the image."""

    grid: tuple[int, int]
    at: tuple[int, int]
    values: Float32

    def __post_init__(self) -> None:
        """Raises ValueError if the cells are not of the grid."""
        if self.values.ndim != 2 or not all(
            0 <= first < first + count <= cells <= _LARGEST_GRID
            for first, count, cells in zip(self.at, self.values.shape, self.grid, strict=True)
        ):
            raise ValueError(f"cells {self.values.shape} at {self.at} of a grid {self.grid}")

    def in_box(self, box: Box, height: int, width: int) -> Float32:
        """The margin in ``box`` (top, left, bottom, right) of an image of ``height`` × ``width`` pixels: float32 (bottom - top,
        right - left), bilinear between the cells' centres, beyond the outermost centres as they are."""
        rows = _between(np.arange(box[0], box[2]), height, self.grid[0], self.at[0], self.values.shape[0])
        cols = _between(np.arange(box[1], box[3]), width, self.grid[1], self.at[1], self.values.shape[1])
        down = self.values[rows.first] + rows.share[:, None] * (self.values[rows.second] - self.values[rows.first])
        found: Float32 = down[:, cols.first] + cols.share * (down[:, cols.second] - down[:, cols.first])
        return found

    def to_json(self) -> dict[str, Any]:
        """What an annotation keeps under ``soft``: margins in 255 steps, the largest kept as it is."""
        step = float(np.abs(self.values).max()) / _MOST
        steps = np.zeros(self.values.shape, np.int8) if step == 0 else np.rint(self.values / np.float64(step)).astype(np.int8)
        return {
            "grid": list(self.grid),
            "at": list(self.at),
            "size": list(self.values.shape),
            "step": step,
            "values": base64.b64encode(steps.tobytes()).decode("ascii"),
        }


def read_soft_margin(extra: Mapping[str, Any], what: str) -> SoftMargin | None:
    """That of an annotation, None if it has none. Raises InputError, naming ``what``, if it is damaged."""
    stored = extra.get(KEY)
    if stored is None:
        return None
    try:
        grid, at, size = (_pair(stored[key]) for key in ("grid", "at", "size"))
        step = stored["step"]
        if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step < np.finfo(np.float32).max / _MOST:
            raise ValueError("step")
        steps = np.frombuffer(base64.b64decode(stored["values"], validate=True), np.int8).reshape(size)
        return SoftMargin(grid, at, steps.astype(np.float32) * np.float32(step))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InputError(f'{what}: its "soft" is not a margin of a grid (see the formats\' document)') from None


@dataclass(frozen=True, slots=True)
class _Between:
    """Of every pixel along a side, the two cells that it lies between, and how far it is from the first to the second."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    share: Float32


def _between(pixels: npt.NDArray[np.int64], side: int, cells: int, at: int, count: int) -> _Between:
    place = np.clip((pixels + 0.5) * (cells / side) - 0.5 - at, 0, count - 1)
    first = np.minimum(place.astype(np.int64), max(0, count - 2))
    return _Between(first, np.minimum(first + 1, count - 1), (place - first).astype(np.float32))


def _pair(stored: Any) -> tuple[int, int]:
    first, second = stored
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (first, second)):
        raise TypeError("not two whole numbers")
    return first, second
