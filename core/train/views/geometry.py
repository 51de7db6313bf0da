"""Which part of a photograph a training view shows, for its pixels and its masks alike, and from one view into another.

A view is the photograph resized and a square cut out of that, padded where it reaches beyond, perhaps mirrored. All of it is
whole numbers, so where a place of a view lies in the photograph is exact arithmetic, and the image, masks at any
resolution and masks carried over from another view agree.

Masks come from their runs: every place of the view asks for one pixel, and a column of places is filled from the runs of
one column of pixels. No mask of the photograph's size is ever made, so the cost goes with the view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ovskit.core.records import RunTable, UInt8
from ovskit.core.runtime.kernels import njit

Int64 = npt.NDArray[np.int64]

PADDING = 128  # what lies beyond the photograph: mid-grey (Ghiasi et al., CVPR 2021, Section 3)


@dataclass(frozen=True, slots=True)
class View:
    """A square of ``side`` pixels out of a photograph of ``height`` × ``width``, resized to ``scaled_height`` × ``scaled_width``.

    (``top``, ``left``) is the square's corner in the resized photograph, negative where there is padding before it;
    ``mirrored`` swaps left and right of the square in the end. All in whole pixels.
    """

    height: int
    width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    side: int
    mirrored: bool = False

    def flipped(self) -> View:
        """The same view mirrored, or back again."""
        return replace(self, mirrored=not self.mirrored)

    def rows(self, places: int) -> Int64:
        """The photograph's row at the middle of each of ``places`` equal cells of the view, from the top; -1 in the padding: int64."""
        return _sources(places, self.side, self.top, self.scaled_height, self.height)

    def columns(self, places: int) -> Int64:
        """As ``rows``, from the left."""
        found = _sources(places, self.side, self.left, self.scaled_width, self.width)
        return found[::-1].copy() if self.mirrored else found

    def window(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the photograph's pixels whose middles the view shows; empty if it shows none."""
        top, bottom = _shown(self.top, self.side, self.scaled_height, self.height)
        left, right = _shown(self.left, self.side, self.scaled_width, self.width)
        return top, left, bottom, right


def whole_view(height: int, width: int, side: int) -> View:
    """All of a photograph in a square of ``side`` pixels, its aspect ignored: what weak views and models at rest see."""
    return View(height, width, side, side, 0, 0, side)


def jittered_view(
    height: int, width: int, side: int, rng: np.random.Generator, scales: tuple[float, float] = (0.1, 2.0), flip: float = 0.5
) -> View:
    """Large-scale jitter (Ghiasi et al., CVPR 2021, Section 3): resized by a random factor, then cropped or padded to the square.

    The photograph keeps its aspect; at scale 1 its longer side is ``side``. The scale is uniform in ``scales``; the paper's
    large-scale jitter is 0.1 to 2, its standard one 0.8 to 1.25. The square is at a random place of what is larger, and
    what is smaller at a random place of the square [choice; padding only below and to the right is common]. Mirrored by
    the chance ``flip``. Four numbers are drawn from ``rng``, whatever they give.
    """
    scale = rng.uniform(*scales) * side / max(height, width)
    down, right, chance = rng.random(3)
    scaled_height, scaled_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = _offset(scaled_height - side, down), _offset(scaled_width - side, right)
    return View(height, width, scaled_height, scaled_width, top, left, side, bool(chance < flip))


def _offset(spare: int, share: float) -> int:
    """A corner between 0 and ``spare``, inclusive, whatever its sign."""
    steps = int(share * (abs(spare) + 1))
    return steps if spare >= 0 else -steps


def warp_image(image: UInt8, view: View) -> UInt8:
    """The view's pixels, (side, side, 3) uint8, of ``image`` (height, width, 3) uint8 RGB; ``PADDING`` beyond it.

    Averaged where it shrinks, so that nothing aliases, and bilinear where it grows.
    """
    side = view.side
    out = np.full((side, side, 3), PADDING, np.uint8)
    y0, y1 = max(0, -view.top), min(side, view.scaled_height - view.top)
    x0, x1 = max(0, -view.left), min(side, view.scaled_width - view.left)
    if y0 < y1 and x0 < x1:
        out[y0:y1, x0:x1] = _resized_part(image, view, view.top + y0, view.left + x0, y1 - y0, x1 - x0)
    return np.asarray(cv2.flip(out, 1), np.uint8) if view.mirrored else out


def _resized_part(image: UInt8, view: View, top: int, left: int, rows: int, columns: int) -> UInt8:
    """The pixels from (``top``, ``left``) of the resized image."""
    if view.scaled_height * view.scaled_width < view.height * view.width:
        whole = cv2.resize(image, (view.scaled_width, view.scaled_height), interpolation=cv2.INTER_AREA)
        return np.asarray(whole[top : top + rows, left : left + columns], np.uint8)
    step_x, step_y = view.width / view.scaled_width, view.height / view.scaled_height
    # From pixel middles to pixel middles, which are at whole numbers here.
    back = np.array([[step_x, 0, (left + 0.5) * step_x - 0.5], [0, step_y, (top + 0.5) * step_y - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, back, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def warp_masks(table: RunTable, view: View, places: int) -> UInt8:
    """All masks of ``table`` seen by ``view``, at ``places`` × ``places`` points: uint8 (n, places, places) of 0 and 1.

    A point is the middle of one of equal cells, and has the value of the photograph's pixel that it falls into (nearest
    neighbour); 0 in the padding. ``table`` has the view's height and width.
    """
    out = np.zeros((len(table), places, places), np.uint8)
    _warp(table, np.arange(len(table)), view, out)
    return out


def warp_union(table: RunTable, which: npt.NDArray[np.integer], view: View, places: int) -> UInt8:
    """As ``warp_masks``, of the union of the masks numbered ``which``: uint8 (places, places)."""
    out = np.zeros((1, places, places), np.uint8)
    _warp(table, np.asarray(which, np.int64), view, out)
    return out[0]


@njit(nogil=True, cache=True)
def count_points(masks: UInt8) -> Int64:
    """How many points of each of ``masks`` (n, h, w), 0 and 1, are 1: int64 (n,)."""
    out = np.zeros(len(masks), np.int64)
    for k in range(len(masks)):
        count = 0
        for r in range(masks.shape[1]):
            for c in range(masks.shape[2]):
                count += masks[k, r, c]
        out[k] = count
    return out


def _warp(table: RunTable, which: Int64, view: View, out: UInt8) -> None:
    if not len(which):
        return
    rows, columns = view.rows(out.shape[1]), view.columns(out.shape[2])
    # first[y]: the first point whose row is y or more. Rows rise from point to point, between padding above and below.
    shown = np.flatnonzero(rows >= 0)
    if not len(shown):
        return
    first = shown[0] + np.searchsorted(rows[shown], np.arange(table.height + 1))
    _fill_points(table.starts, table.ends, table.offsets, table.bboxes, table.height, which, columns, first, out)


def visible_areas(table: RunTable, view: View) -> Int64:
    """How many of each mask's pixels have their middle in the view: int64 (n,)."""
    out = np.zeros(len(table), np.int64)
    _count_inside(table.starts, table.ends, table.offsets, table.height, view.window(), out)
    return out


def carry(masks: Tensor, seen: View, wanted: View, places: int) -> Tensor:
    """``masks`` (n, G, G) as ``seen`` has them, where ``wanted`` has them: (n, places, places), of the same dtype and device.

    Masks, or any values at the middles of equal cells of a view (a teacher's probabilities), from one view of a photograph into
    another of the same; the nearest one is taken. 0 where ``seen`` does not look and beyond the photograph: ``sees`` tells
    these places from background.
    """
    ways = _carried(seen, wanted, masks.shape[-2], masks.shape[-1], places)
    rows, columns = (torch.from_numpy(way).to(masks.device) for way in ways)
    found = masks[:, rows.clamp(min=0)[:, None], columns.clamp(min=0)[None, :]]
    return found * ((rows >= 0)[:, None] & (columns >= 0)[None, :]).to(found.dtype)


def sees(seen: View, wanted: View, places: int) -> npt.NDArray[np.bool_]:
    """Which of the points of ``wanted`` lie in the photograph and in ``seen``: bool (places, places)."""
    rows, columns = _carried(seen, wanted, seen.side, seen.side, places)
    return np.asarray((rows >= 0)[:, None] & (columns >= 0)[None, :])


def _carried(seen: View, wanted: View, height: int, width: int, places: int) -> tuple[Int64, Int64]:
    """For each row and column of ``wanted`` the one of ``seen``, which has height × width of them; -1 where there is none."""
    if (seen.height, seen.width) != (wanted.height, wanted.width):
        raise ValueError("masks are carried between views of one photograph only")
    rows = _between(places, (wanted.side, wanted.top, wanted.scaled_height), height, (seen.side, seen.top, seen.scaled_height))
    columns = _between(places, (wanted.side, wanted.left, wanted.scaled_width), width, (seen.side, seen.left, seen.scaled_width))
    if seen.mirrored:
        columns = np.where(columns >= 0, width - 1 - columns, -1)
    return rows, columns[::-1].copy() if wanted.mirrored else columns


def _points(places: int, side: int, offset: int) -> Int64:
    """The middles of a view's cells in the resized photograph, from its edge, in units of 1 / (2 · places) pixels."""
    return (2 * np.arange(places, dtype=np.int64) + 1) * side + 2 * places * offset


def _sources(places: int, side: int, offset: int, scaled: int, size: int) -> Int64:
    points, whole = _points(places, side, offset), 2 * places * scaled
    return np.where((points >= 0) & (points < whole), points * size // whole, -1)


def _between(places: int, wanted: tuple[int, int, int], cells: int, seen: tuple[int, int, int]) -> Int64:
    """For each of ``places`` of one view the one of ``cells`` of another; a view is its side, its offset and the scaled size."""
    side, offset, scaled = seen
    points, whole = _points(places, wanted[0], wanted[1]), 2 * places * wanted[2]
    found = (points * scaled - offset * whole) * cells // (whole * side)
    return np.where((points >= 0) & (points < whole) & (found >= 0) & (found < cells), found, -1)


def _shown(offset: int, side: int, scaled: int, size: int) -> tuple[int, int]:
    """The pixels k of ``size`` whose middle (k + ½) · scaled / size is at ``offset`` or more and below ``offset + side``."""

    def first(edge: int) -> int:  # the smallest k with (2k + 1) · scaled ≥ 2 · size · edge
        return min(size, max(0, -((scaled - 2 * size * edge) // (2 * scaled))))

    return first(offset), first(offset + side)


@njit(nogil=True, cache=True)
def _fill_points(
    starts: Int64, ends: Int64, offsets: Int64, boxes: np.ndarray, height: int, which: Int64, columns: Int64, first: Int64, out: UInt8
) -> None:
    """Points of mask ``which[m]`` into ``out[min(m, len(out) - 1)]``: into planes of their own, or all into one."""
    for m in range(len(which)):
        k = which[m]
        plane = out[min(m, out.shape[0] - 1)]
        for c in range(len(columns)):
            x = columns[c]
            if x < boxes[k, 0] or x >= boxes[k, 0] + boxes[k, 2]:
                continue
            low, high = offsets[k], offsets[k + 1]
            while low < high:  # the first run that ends in this column or behind it
                middle = (low + high) >> 1
                if ends[middle] > x * height:
                    high = middle
                else:
                    low = middle + 1
            while low < offsets[k + 1] and starts[low] < (x + 1) * height:
                above = max(starts[low] - x * height, 0)
                below = min(ends[low] - x * height, height)
                for r in range(first[above], first[below]):
                    plane[r, c] = 1
                low += 1


@njit(nogil=True, cache=True)
def _count_inside(starts: Int64, ends: Int64, offsets: Int64, height: int, window: tuple[int, int, int, int], out: Int64) -> None:
    top, left, bottom, right = window
    for k in range(len(out)):
        count = 0
        for r in range(offsets[k], offsets[k + 1]):
            if ends[r] <= left * height or starts[r] >= right * height:
                continue
            x = starts[r] // height
            while x * height < ends[r]:
                if left <= x < right:
                    above = max(starts[r] - x * height, top)
                    below = min(ends[r] - x * height, bottom)
                    count += max(0, below - above)
                x += 1
        out[k] = count
