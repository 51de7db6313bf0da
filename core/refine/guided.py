"""Guided filter: masks whose edges follow the photograph's, without training and without labels.

He, Sun and Tang, "Guided Image Filtering", TPAMI 35(6), 2013, with a colour guide. In every window of (2r + 1)² pixels the
output is to be linear in the guide's colours, q = aᵀI + b. The best such a and b for the mask p are (Eq. 19, 20)

    a = (Σ + εU)⁻¹ (mean(I p) - mean(I) mean(p)),    b = mean(p) - aᵀ mean(I),

Σ the 3 × 3 covariance of the colours, U the identity; each pixel takes the mean a and b of the windows around it (Eq. 21).
Windows are cut off at the image's border and means are over the pixels that are left. A pixel is in the refined mask if
its q exceeds 0.5 [choice].

Colours are integers, so all sums of a window, and from them its covariances up to one division, are exact integers: nothing
cancels. a and b are rounded to multiples of 2⁻²⁶, so that their sums are exact as well. The result therefore does not
depend on the order of summation: a crop around a mask, or a tile of it, gives the whole image's result to the bit, whatever OpenCV
does inside. (OpenCV's box filter runs in the calling thread, so ``cv2.setNumThreads`` is not needed.)

Masks are filtered in square tiles, so that memory does not grow with them: a thread holds up to 3 bytes a pixel of the mask's box (the
mask and the result) and, whatever the sizes of mask and image, at most 35 MB more with a radius of 16, 85 MB with the largest.
Measured by ``bench/guided_memory.py``: 209 MB for a mask of 100 megapixels, 14 MB for one of a megapixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.masks.boxes import Box, box_around, decode_box, encode_box
from ovskit.core.records import Int32, Mask, Rle, RunTable, UInt8
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.kernels import njit

if TYPE_CHECKING:
    from ovskit.core.refine.methods.guided import GuidedOptions

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Place = tuple[int, int]

_UNIT = 2.0**26

# A tile's halo of 2r is seen again by the tiles beside it: at four radii a side, at most four times in all.
_SIDE = 256
_SHARED_PIXELS = 1 << 19  # up to this size of an image its sums are made once for all masks: 19 MB


def guided_refiner(options: GuidedOptions) -> Refiner:
    """The refiner ``guided``."""

    def refine(pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        height, width = pixels.shape[:2]
        guides: dict[int, Guide] = {}
        refined = []
        for k, mask in enumerate(masks):
            if not table.areas[k]:
                refined.append(mask.rle)
                continue
            radius = radius_for(int(table.areas[k]), options)
            if radius not in guides:
                # Smaller radii are for small masks: the sums that they need are few.
                shared = radius == options.radius and height * width <= _SHARED_PIXELS
                guides[radius] = Guide(pixels, radius, options.eps, shared=shared)
            box = box_around(table, k, 2 * radius)
            refined.append(encode_box(guides[radius].refined(decode_box(table, k, box), box), box, height, width))
        return refined

    return Refiner("guided", refine)


def radius_for(area: int, options: GuidedOptions) -> int:
    """The windows' radius for a mask of ``area`` pixels."""
    return round(max(1.0, min(options.radius, options.share * math.sqrt(area))))


class Guide:
    """What masks with one radius share: the image, and how it is filtered; if ``shared`` also the sums of the image's colours and of
    their products over every window, 36 bytes a pixel of ``pixels`` (H, W, 3). Else every tile makes those it needs.

    ``side`` is that of a tile in pixels. It changes nothing but the memory and the time.
    """

    def __init__(self, pixels: UInt8, radius: int, eps: float, *, shared: bool = False, side: int | None = None) -> None:
        self._pixels, self._radius, self._eps = pixels, radius, eps
        self._side = max(_SIDE, 4 * radius) if side is None else side
        self._rows, self._cols = _overlap(pixels.shape[0], radius), _overlap(pixels.shape[1], radius)
        self._shared = self._sums_of_colours(np.ascontiguousarray(pixels)) if shared else None

    def refined(self, mask: UInt8, box: Box) -> Bools:
        """Where q exceeds 0.5, bool (h, w); as ``filtered``."""
        found = np.empty(mask.shape, np.bool_)
        for part, q in self.filtered(mask, box):
            found[_within(part, box)] = q > 0.5
        return found

    def filtered(self, mask: UInt8, box: Box) -> Iterator[tuple[Box, Float64]]:
        """q of the mask that is ``mask`` inside ``box`` and 0 elsewhere, tile by tile: each with its (top, left, bottom, right) in the
        image and float64 (bottom - top, right - left), about 0 to 1, seldom beyond.

        ``mask`` (h, w) uint8 of 0 and 1; ``box`` (top, left, bottom, right) in pixels of the image. Equal to the filter on the whole
        image, to the bit, if the mask's pixels are 2r away from those sides of the box that are not the image's own.
        """
        top, left, bottom, right = box
        for y in range(top, bottom, self._side):
            for x in range(left, right, self._side):
                part = y, x, min(y + self._side, bottom), min(x + self._side, right)
                yield part, self._tile(mask, box, part)

    def _tile(self, mask: UInt8, box: Box, part: Box) -> Float64:
        """q in ``part`` of ``box``: from a and b up to r around it, which come from what is up to 2r around it."""
        out = np.empty((part[2] - part[0], part[3] - part[1]), np.float64)
        far, near = _grown(part, 2 * self._radius, box), _grown(part, self._radius, box)
        seen = mask[_within(far, box)]
        count = np.count_nonzero(seen)
        if count in (0, seen.size):  # constant in every window, as most of a large mask's box is
            out[:] = count > 0
            return out
        pixels = np.ascontiguousarray(self._pixels[far[0] : far[2], far[1] : far[3]])
        sums = self._sum(np.dstack((pixels * seen[:, :, None], seen)), cv2.CV_32S)
        colours, origin = (self._sums_of_colours(pixels), far) if self._shared is None else (self._shared, (0, 0, 0, 0))
        a_and_b = np.empty((near[2] - near[0], near[3] - near[1], 4), np.float64)
        rows, cols = self._rows[near[0] : near[2]], self._cols[near[1] : near[3]]
        _solve(sums, _from(near, far), *colours, _from(near, origin), rows, cols, self._eps * 255.0**2, a_and_b)
        rows, cols = self._rows[part[0] : part[2]], self._cols[part[1] : part[3]]
        _combine(self._sum(a_and_b, cv2.CV_64F), _from(part, near), pixels, _from(part, far), rows, cols, out)
        return out

    def _sums_of_colours(self, pixels: UInt8) -> tuple[Int32, Int32, Int32]:
        """Over the windows, (h, w, 3) each: the colours, their squares, and their products rg, gb, br."""
        wide = pixels.astype(np.uint16)
        return (
            self._sum(pixels, cv2.CV_32S),
            self._sum(wide * wide, cv2.CV_32S),
            self._sum(wide * wide[:, :, [1, 2, 0]], cv2.CV_32S),
        )

    def _sum(self, values: npt.NDArray[Any], depth: int) -> npt.NDArray[Any]:
        """Sums over the windows, channel by channel: (h, w, c). What lies outside ``values`` counts as 0."""
        side = 2 * self._radius + 1
        return cv2.boxFilter(values, depth, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _grown(part: Box, by: int, limit: Box) -> Box:
    """``part`` grown by so many pixels on each side, as far as ``limit`` goes."""
    return max(part[0] - by, limit[0]), max(part[1] - by, limit[1]), min(part[2] + by, limit[2]), min(part[3] + by, limit[3])


def _from(part: Box, origin: Box) -> tuple[int, int]:
    """The rows and columns from the top left of ``origin`` to that of ``part``."""
    return part[0] - origin[0], part[1] - origin[1]


def _within(part: Box, whole: Box) -> tuple[slice, slice]:
    """Where ``part`` of the image lies in an array of what is in ``whole``."""
    return slice(part[0] - whole[0], part[2] - whole[0]), slice(part[1] - whole[1], part[3] - whole[1])


def _overlap(length: int, radius: int) -> Int64:
    """How many of the 2r + 1 positions around each of ``length`` lie inside: int64 (length,)."""
    at = np.arange(length, dtype=np.int64)
    return np.minimum(at + radius, length - 1) - np.maximum(at - radius, 0) + 1


# The compiled functions are given whole arrays and where in them to begin: slices would be compiled once more, as arrays with gaps.


@njit(nogil=True, cache=True)
def _solve(
    sums: Int32, at: Place, first: Int32, squares: Int32, products: Int32, from_: Place, rows: Int64, cols: Int64, eps: float, out: Float64
) -> None:
    """Eq. 19 and 20 at every pixel of ``out``, in units of 2⁻²⁶ and for colours of [0, 1]. ``eps`` is for colours of [0, 255].

    Its first pixel is ``at`` in ``sums``, and ``from_`` in the sums of colours.
    """
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            n = rows[j] * cols[i]
            y, x = at[0] + j, at[1] + i
            p = np.int64(sums[y, x, 3])
            if p == 0 or p == n:  # the mask is constant in the window, and so is q
                out[j, i, 0] = out[j, i, 1] = out[j, i, 2] = 0.0
                out[j, i, 3] = _UNIT if p else 0.0
                continue
            v, u = from_[0] + j, from_[1] + i
            # n² times (Σ + εU) and the covariance with p: exact, but for the conversion and ε.
            r, g, b = np.int64(first[v, u, 0]), np.int64(first[v, u, 1]), np.int64(first[v, u, 2])
            ridge = eps * n * n
            rr = np.float64(n * squares[v, u, 0] - r * r) + ridge
            gg = np.float64(n * squares[v, u, 1] - g * g) + ridge
            bb = np.float64(n * squares[v, u, 2] - b * b) + ridge
            rg = np.float64(n * products[v, u, 0] - r * g)
            gb = np.float64(n * products[v, u, 1] - g * b)
            br = np.float64(n * products[v, u, 2] - b * r)
            rp = np.float64(n * sums[y, x, 0] - r * p)
            gp = np.float64(n * sums[y, x, 1] - g * p)
            bp = np.float64(n * sums[y, x, 2] - b * p)
            # L D Lᵀ: no pivot is below the ridge, whatever the colours.
            l_gr = rg / rr
            l_br = br / rr
            d_g = gg - l_gr * rg
            s = gb - l_gr * br
            l_bg = s / d_g
            d_b = bb - l_br * br - l_bg * s
            z_g = gp - l_gr * rp
            z_b = bp - l_br * rp - l_bg * z_g
            a_b = z_b / d_b
            a_g = z_g / d_g - l_bg * a_b
            a_r = rp / rr - l_gr * a_g - l_br * a_b
            out[j, i, 0] = np.rint(255.0 * _UNIT * a_r)
            out[j, i, 1] = np.rint(255.0 * _UNIT * a_g)
            out[j, i, 2] = np.rint(255.0 * _UNIT * a_b)
            out[j, i, 3] = np.rint(_UNIT * (p - a_r * r - a_g * g - a_b * b) / n)


@njit(nogil=True, cache=True)
def _combine(sums: Float64, at: Place, pixels: UInt8, from_: Place, rows: Int64, cols: Int64, out: Float64) -> None:
    """Eq. 21 at every pixel of ``out``, whose first is ``at`` in ``sums`` and ``from_`` in ``pixels``."""
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            y, x = at[0] + j, at[1] + i
            v, u = from_[0] + j, from_[1] + i
            a_i = sums[y, x, 0] * pixels[v, u, 0] + sums[y, x, 1] * pixels[v, u, 1] + sums[y, x, 2] * pixels[v, u, 2]
            out[j, i] = (a_i / 255.0 + sums[y, x, 3]) / (_UNIT * (rows[j] * cols[i]))
