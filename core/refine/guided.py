"""Guided filter: masks whose edges follow the photograph's, without training and without labels.

He, Sun and Tang, "Guided Image Filtering", TPAMI 35(6), 2013, with a colour guide. In every window of (2r + 1)² pixels the
output is to be linear in the guide's colours, q = aᵀI + b. The best such a and b for the mask p are (Eq. 19, 20)

    a = (Σ + εU)⁻¹ (mean(I p) - mean(I) mean(p)),    b = mean(p) - aᵀ mean(I),

Σ the 3 × 3 covariance of the colours, U the identity; each pixel takes the mean a and b of the windows around it (Eq. 21).
Windows are cut off at the image's border and means are over the pixels that are left. A pixel is in the refined mask if
its q exceeds 0.5 [choice].

Colours are integers, so all sums of a window, and from them its covariances up to one division, are exact integers: nothing
cancels. a and b are rounded to multiples of 2⁻²⁶, so that their sums are exact as well. The result therefore does not
depend on the order of summation: a crop around a mask gives the whole image's result to the bit, whatever OpenCV does
inside. (OpenCV's box filter runs in the calling thread, so ``cv2.setNumThreads`` is not needed.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.formats.rle import RunTable
from ovskit.core.formats.rle_boxes import Box, box_around, decode_box, encode_box
from ovskit.core.records import Int32, Mask, Rle, UInt8
from ovskit.core.refine.refiner import Refiner, check_sizes
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.kernels import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# 255² (2r + 1)² must fit in 31 bits, and 0.25 / √ε · 2²⁶ (2r + 1)², which bounds the sums of a, in 53.
MAX_RADIUS = 90
MIN_EPS = 1e-6
_UNIT = 2.0**26


@dataclass(frozen=True, slots=True)
class GuidedOptions:
    """``radius`` is the largest radius of a window in pixels, 1 to 90; ``share`` bounds it to that share of the square root of
    the mask's area, down to 1 pixel: a window much larger than a mask would smooth it away. ``inf`` gives every mask ``radius``.
    ``eps`` is ε, the variance of colours in [0, 1] below which an edge of the guide counts for little, 1e-6 or more.

    All are [choice], measured on thirty photographs each of COCO entities, BSDS500 and clothing parts: AR@1000 is alike, within
    its noise, for radii of 8 to 24 and ε of 1e-4 to 3e-3, but clothing gains by 12 and more. Without ``share`` a radius
    of 8 leaves an eighth to half of the masks with an IoU below 0.5 with what they were.
    """

    radius: int = 16
    eps: float = 1e-3
    share: float = 0.25


def guided_refiner(options: GuidedOptions = GuidedOptions()) -> Refiner:
    """The refiner ``guided``. Raises UsageError if an option is out of range."""
    if not 1 <= options.radius <= MAX_RADIUS:
        raise UsageError(f"the guided filter's radius is {options.radius}: choose 1 to {MAX_RADIUS} pixels")
    if not MIN_EPS <= options.eps < math.inf:
        raise UsageError(f"the guided filter's eps is {options.eps:g}: choose a number from {MIN_EPS:g} up")
    if not options.share > 0:
        raise UsageError(f"the guided filter's share is {options.share:g}: choose a number above 0")

    def refine(pixels: UInt8, masks: Sequence[Mask]) -> list[Rle]:
        table = RunTable([mask.rle for mask in masks])
        height, width = pixels.shape[:2]
        check_sizes(pixels, table)
        shared: Guide | None = None
        refined = []
        for k, mask in enumerate(masks):
            if not table.areas[k]:
                refined.append(mask.rle)
                continue
            radius = radius_for(int(table.areas[k]), options)
            box = box_around(table, k, 2 * radius)
            if radius < options.radius:  # a small mask: the sums it needs are few
                guide = Guide(pixels, box, radius, options.eps)
            else:
                guide = shared = shared or Guide(pixels, (0, 0, height, width), radius, options.eps)
            refined.append(encode_box(guide.filter(decode_box(table, k, box), box) > 0.5, box, height, width))
        return refined

    return Refiner("guided", refine)


def radius_for(area: int, options: GuidedOptions) -> int:
    """The windows' radius for a mask of ``area`` pixels."""
    return round(max(1.0, min(options.radius, options.share * math.sqrt(area))))


class Guide:
    """What masks with one radius share: the sums of the image's colours and of their products over every window.

    ``box`` (top, left, bottom, right) is the part of the image ``pixels`` (H, W, 3) that masks are filtered in. Needs 36
    bytes a pixel of it.
    """

    def __init__(self, pixels: UInt8, box: Box, radius: int, eps: float) -> None:
        top, left, bottom, right = box
        self._top, self._left = top, left
        self._radius, self._eps = radius, eps
        self._pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
        wide = self._pixels.astype(np.uint16)
        self._first = self._sum(self._pixels, cv2.CV_32S)
        self._squares = self._sum(wide * wide, cv2.CV_32S)
        self._products = self._sum(wide * wide[:, :, [1, 2, 0]], cv2.CV_32S)  # rg, gb, br
        self._rows = _overlap(pixels.shape[0], radius)[top:bottom]
        self._cols = _overlap(pixels.shape[1], radius)[left:right]

    def filter(self, mask: UInt8, box: Box) -> Float64:
        """q of the mask that is ``mask`` inside ``box`` and 0 elsewhere: float64 (h, w), about 0 to 1, seldom beyond.

        ``mask`` (h, w) uint8 of 0 and 1; ``box`` (top, left, bottom, right) in pixels of the image, within the guide's. Equal
        to the filter on the whole image, to the bit, if the mask's pixels are 2r away from those sides of the box that
        are not the image's own.
        """
        top, left, bottom, right = box
        here = np.s_[top - self._top : bottom - self._top, left - self._left : right - self._left]
        rows, cols, pixels = self._rows[here[0]], self._cols[here[1]], self._pixels[here]
        sums = self._sum(np.dstack((pixels * mask[:, :, None], mask)), cv2.CV_32S)
        a_and_b = np.empty(sums.shape, np.float64)
        _solve(sums, self._first[here], self._squares[here], self._products[here], rows, cols, self._eps * 255.0**2, a_and_b)
        out = np.empty(mask.shape, np.float64)
        _combine(self._sum(a_and_b, cv2.CV_64F), pixels, rows, cols, out)
        return out

    def _sum(self, values: npt.NDArray[Any], depth: int) -> npt.NDArray[Any]:
        """Sums over the windows, channel by channel: (h, w, c). What lies outside ``values`` counts as 0."""
        side = 2 * self._radius + 1
        return cv2.boxFilter(values, depth, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _overlap(length: int, radius: int) -> Int64:
    """How many of the 2r + 1 positions around each of ``length`` lie inside: int64 (length,)."""
    at = np.arange(length, dtype=np.int64)
    return np.minimum(at + radius, length - 1) - np.maximum(at - radius, 0) + 1


@njit(nogil=True, cache=True)
def _solve(sums: Int32, first: Int32, squares: Int32, products: Int32, rows: Int64, cols: Int64, eps: float, out: Float64) -> None:
    """Eq. 19 and 20 at every pixel, in units of 2⁻²⁶ and for colours of [0, 1]. ``eps`` is for colours of [0, 255]."""
    for y in range(sums.shape[0]):
        for x in range(sums.shape[1]):
            n = rows[y] * cols[x]
            p = np.int64(sums[y, x, 3])
            if p == 0 or p == n:  # the mask is constant in the window, and so is q
                out[y, x, 0] = out[y, x, 1] = out[y, x, 2] = 0.0
                out[y, x, 3] = _UNIT if p else 0.0
                continue
            # n² times (Σ + εU) and the covariance with p: exact, but for the conversion and ε.
            r, g, b = np.int64(first[y, x, 0]), np.int64(first[y, x, 1]), np.int64(first[y, x, 2])
            ridge = eps * n * n
            rr = np.float64(n * squares[y, x, 0] - r * r) + ridge
            gg = np.float64(n * squares[y, x, 1] - g * g) + ridge
            bb = np.float64(n * squares[y, x, 2] - b * b) + ridge
            rg = np.float64(n * products[y, x, 0] - r * g)
            gb = np.float64(n * products[y, x, 1] - g * b)
            br = np.float64(n * products[y, x, 2] - b * r)
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
            out[y, x, 0] = np.rint(255.0 * _UNIT * a_r)
            out[y, x, 1] = np.rint(255.0 * _UNIT * a_g)
            out[y, x, 2] = np.rint(255.0 * _UNIT * a_b)
            out[y, x, 3] = np.rint(_UNIT * (p - a_r * r - a_g * g - a_b * b) / n)


@njit(nogil=True, cache=True)
def _combine(sums: Float64, pixels: UInt8, rows: Int64, cols: Int64, out: Float64) -> None:
    """Eq. 21 at every pixel."""
    for y in range(sums.shape[0]):
        for x in range(sums.shape[1]):
            a_i = sums[y, x, 0] * pixels[y, x, 0] + sums[y, x, 1] * pixels[y, x, 1] + sums[y, x, 2] * pixels[y, x, 2]
            out[y, x] = (a_i / 255.0 + sums[y, x, 3]) / (_UNIT * (rows[y] * cols[x]))
