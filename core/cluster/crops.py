"""The crops of the local step: squares around regions too small to be trusted at the global scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovskit.core.records import Float, Int32
from ovskit.core.runtime.kernels import njit


@dataclass(frozen=True, slots=True)
class Crop:
    """A box of native pixels, right and bottom exclusive, and which of its sides lie on the image's own border."""

    left: int
    top: int
    right: int
    bottom: int
    at_left: bool
    at_top: bool
    at_right: bool
    at_bottom: bool


def plan_crops(
    boxes: Int32,
    grid: tuple[int, int],
    frame: tuple[int, int],
    image: tuple[int, int],
    *,
    context: float,
    smallest: int,
    share: float,
) -> list[Crop]:
    """Crops for candidate regions, those that nearly coincide shared.

    ``boxes`` (n, 4) are top, left, bottom, right in patches (exclusive) of a ``grid`` (h, w) laid over a ``frame``
    (height, width) of pixels, to which the native ``image`` (height, width) was resized. A crop is a square of the frame
    around the box, side ``context`` × its longer side and at least ``smallest`` frame pixels, moved inside the frame;
    a candidate takes an earlier crop if it holds the candidate's box and overlaps its own crop with IoU ≥ ``share``.
    SOHES §3.1 crops "around" small regions and resizes to 256; side, minimum and sharing are choices.
    """
    if len(boxes) == 0:
        return []
    patch = np.array([frame[0] / grid[0], frame[1] / grid[1]] * 2)
    inner = boxes * patch
    squares = _squares(inner, np.float64(frame[0]), np.float64(frame[1]), context, float(smallest))
    chosen = _shared(squares, inner, share)
    return [_crop(square, frame, image) for square in squares[chosen]]


@njit(nogil=True, cache=True)
def _squares(inner: Float, height: float, width: float, context: float, smallest: float) -> Float:
    out = np.empty_like(inner)
    for k in range(len(inner)):
        top, left, bottom, right = inner[k]
        side = max(smallest, context * max(bottom - top, right - left))
        for axis, limit in ((0, height), (1, width)):
            length = min(side, limit)
            start = (inner[k, axis] + inner[k, axis + 2]) / 2 - length / 2
            start = min(max(start, 0.0), limit - length)
            out[k, axis] = start
            out[k, axis + 2] = start + length
    return out


@njit(nogil=True, cache=True)
def _shared(squares: Float, inner: Float, share: float) -> npt.NDArray[np.int64]:
    chosen = np.empty(len(squares), np.int64)
    count = 0
    for k in range(len(squares)):
        found = False
        for j in range(count):
            a = squares[chosen[j]]
            if a[0] > inner[k, 0] or a[1] > inner[k, 1] or a[2] < inner[k, 2] or a[3] < inner[k, 3]:
                continue
            b = squares[k]
            rows = min(a[2], b[2]) - max(a[0], b[0])
            cols = min(a[3], b[3]) - max(a[1], b[1])
            common = max(rows, 0.0) * max(cols, 0.0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            if common >= share * union:
                found = True
                break
        if not found:
            chosen[count] = k
            count += 1
    return chosen[:count]


def _crop(square: Float, frame: tuple[int, int], image: tuple[int, int]) -> Crop:
    scale = (image[0] / frame[0], image[1] / frame[1])
    top, bottom = _span(square[0] * scale[0], square[2] * scale[0], image[0])
    left, right = _span(square[1] * scale[1], square[3] * scale[1], image[1])
    return Crop(left, top, right, bottom, left == 0, top == 0, right == image[1], bottom == image[0])


def _span(start: float, stop: float, limit: int) -> tuple[int, int]:
    """Whole pixels of [start, stop), at least one of them, inside [0, limit)."""
    first = min(max(0, round(start)), limit - 1)
    return first, max(first + 1, min(limit, round(stop)))


@njit(nogil=True, cache=True)
def region_boxes(partitions: Int32, level: Int32, label: Int32) -> Int32:
    """Boxes (n, 4) int32 of regions: top, left, bottom, right in patches, right and bottom exclusive."""
    levels, height, width = partitions.shape
    which = np.full((levels, height * width), -1, np.int32)
    out = np.empty((len(level), 4), np.int32)
    for k in range(len(level)):
        which[level[k], label[k]] = k
        out[k] = np.array([height, width, 0, 0], np.int32)
    for t in range(levels):
        for y in range(height):
            for x in range(width):
                k = which[t, partitions[t, y, x]]
                if k >= 0:
                    out[k, 0] = min(out[k, 0], y)
                    out[k, 1] = min(out[k, 1], x)
                    out[k, 2] = max(out[k, 2], y + 1)
                    out[k, 3] = max(out[k, 3], x + 1)
    return out


def touches_border(boxes: Int32, grid: tuple[int, int], crop: Crop) -> npt.NDArray[np.bool_]:
    """Which regions, by their ``boxes`` (n, 4) on a crop's ``grid``, touch a side of the crop that is not the image's own border."""
    touching: npt.NDArray[np.bool_] = (
        ((boxes[:, 0] == 0) & (not crop.at_top))
        | ((boxes[:, 1] == 0) & (not crop.at_left))
        | ((boxes[:, 2] == grid[0]) & (not crop.at_bottom))
        | ((boxes[:, 3] == grid[1]) & (not crop.at_right))
    )
    return touching
