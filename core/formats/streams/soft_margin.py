"""The soft margin of a mask: how clearly the cells of a coarse grid are on its side, or on the other.

A mask cut from a coarse map is sure of its middle and not of its edge. The optional key ``soft`` of an annotation keeps what the cut
took away, so that a stage after it can start from the map:

    "soft": {"grid": [rows, columns], "at": [row, column], "size": [rows, columns], "step": 0.0039, "values": "base64 …"}

``grid`` cells cover the whole image, whatever its aspect; ``values`` are int8, row by row, of the ``size`` cells from ``at`` on; a cell's
margin is its value times ``step``, above 0 on the mask's side.

Where a mask is made of whole cells there is nothing to keep but the grid, and the margin is read back from the mask:

    "soft": {"grid": [rows, columns]}    or    "soft": {"grid": [rows, columns], "box": [x, y, width, height]}

A cell's margin is then twice the share of it that the mask covers, less 1: +1 or -1 in a mask as it was cut. ``box`` is where the grid
lies, in pixels of the image, if not over all of it. A reader that does not know the key has a COCO annotation like any other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.boxes import Box
from ovskit.core.masks.grid import edges
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import InputError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

KEY = "soft"
_MOST = 127
_LARGEST_GRID = 1 << 16  # cells along a side: beyond it is not a map of patches


@dataclass(frozen=True, slots=True)
class SoftMargin:
    """``values`` (rows, columns) float32 of the cells from ``at`` (row, column) on, of a ``grid`` (rows, columns) over the image, or over
    the ``area`` (top, left, bottom, right) of it."""

    grid: tuple[int, int]
    at: tuple[int, int]
    values: Float32
    area: Box | None = None

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
        top, left, bottom, right = self.area or (0, 0, height, width)
        rows = _between(np.arange(box[0], box[2]) - top, bottom - top, self.grid[0], self.at[0], self.values.shape[0])
        cols = _between(np.arange(box[1], box[3]) - left, right - left, self.grid[1], self.at[1], self.values.shape[1])
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


@dataclass(frozen=True, slots=True)
class SoftGrid:
    """A ``grid`` (rows, columns) over the image, or the ``area`` (top, left, bottom, right) of it, from whose cells a mask was made."""

    grid: tuple[int, int]
    area: Box | None = None

    def margin_of(self, inside: UInt8, box: Box, height: int, width: int) -> SoftMargin:
        """The margin of a mask of an image of ``height`` × ``width`` pixels: in ``box`` the mask is ``inside`` (bottom - top, right -
        left), of 0 and 1, elsewhere 0.

        The result covers the cells that lie in the box and those around them. A grid finer than the pixels is taken as a grid of pixels.
        """
        area = self.area or (0, 0, height, width)
        rows, top = _cells_around(self.grid[0], area[0], area[2], height, box[0], box[2])
        cols, left = _cells_around(self.grid[1], area[1], area[3], width, box[1], box[3])
        covered = _sums(_sums(inside, rows - box[0], 0), cols - box[1], 1) / (np.diff(rows)[:, None] * np.diff(cols))
        cells = min(self.grid[0], area[2] - area[0]), min(self.grid[1], area[3] - area[1])
        return SoftMargin(cells, (top, left), (2 * covered - 1).astype(np.float32), self.area)

    def to_json(self) -> dict[str, Any]:
        """What an annotation keeps under ``soft``."""
        if self.area is None:
            return {"grid": list(self.grid)}
        top, left, bottom, right = self.area
        return {"grid": list(self.grid), "box": [left, top, right - left, bottom - top]}


def read_soft_margin(extra: Mapping[str, Any], what: str, height: int, width: int) -> SoftMargin | SoftGrid | None:
    """The soft margin of an annotation of an image of ``height`` × ``width`` pixels: None for an annotation without ``soft``; the grid
    alone where the mask is the margin.

    Raises InputError, naming ``what``, if it is damaged.
    """
    stored = extra.get(KEY)
    if stored is None:
        return None
    try:
        grid = _pair(stored["grid"])
        if "values" not in stored:
            return _grid_over(grid, stored, height, width)
        at, size = (_pair(stored[key]) for key in ("at", "size"))
        step = stored["step"]
        if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step < np.finfo(np.float32).max / _MOST:
            raise ValueError("step")
        steps = np.frombuffer(base64.b64decode(stored["values"], validate=True), np.int8).reshape(size)
        return SoftMargin(grid, at, steps.astype(np.float32) * np.float32(step))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InputError(f'{what}: its "soft" is not a margin of a grid (see docs/reference/formats.md)') from None


def _grid_over(grid: tuple[int, int], stored: Mapping[str, Any], height: int, width: int) -> SoftGrid:
    if not all(1 <= cells <= _LARGEST_GRID for cells in grid) or set(stored) - {"grid", "box"}:
        raise ValueError("grid")
    if "box" not in stored:
        return SoftGrid(grid)
    x, y, wide, high = (*_pair(stored["box"][:2]), *_pair(stored["box"][2:]))
    if not (0 <= x < x + wide <= width and 0 <= y < y + high <= height):
        raise ValueError("box")
    return SoftGrid(grid, (y, x, y + high, x + wide))


def _cells_around(cells: int, start: int, stop: int, limit: int, first: int, last: int) -> tuple[Int64, int]:
    """The boundaries of the cells that ``[first, last)`` touches and of one more on each side, and the number of the first, along a side of
    ``limit`` pixels with ``cells`` cells (no more than pixels) over ``[start, stop)``."""
    bounds = edges(min(cells, stop - start), start, stop, limit).astype(np.int64)
    begin = int(np.clip(np.searchsorted(bounds, first, side="right") - 2, 0, len(bounds) - 2))
    end = int(np.clip(np.searchsorted(bounds, last) + 1, begin + 1, len(bounds) - 1))
    return bounds[begin : end + 1], begin


def _sums(values: npt.NDArray[Any], bounds: Int64, axis: int) -> Int64:
    """Sums along ``axis`` from each of the ascending ``bounds`` to the next; what they count beyond the ends is 0."""
    inner = np.clip(bounds, 0, values.shape[axis])
    filled = np.flatnonzero(np.diff(inner))
    out = np.zeros((len(bounds) - 1, values.shape[1]) if axis == 0 else (values.shape[0], len(bounds) - 1), np.int64)
    if len(filled):
        some = values[: inner[-1]] if axis == 0 else values[:, : inner[-1]]
        found = np.add.reduceat(some, inner[filled], axis=axis, dtype=np.int64)
        if axis == 0:
            out[filled] = found
        else:
            out[:, filled] = found
    return out


@dataclass(frozen=True, slots=True)
class _Between:
    """The two cells that every pixel along a side lies between, and how far it is from the first to the second."""

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
