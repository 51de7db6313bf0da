"""snap: masks whose edges follow those of fine superpixels. Ours, without training and without labels.

The image is cut into superpixels at several scales (``superpixels``). In each map a superpixel belongs to a mask as far as the mask
covers it: w = |s ∩ m| / |s|. A pixel's score is the mean of its superpixels' w over the maps, and it is in the refined mask if
that exceeds ``threshold``. Only pixels within ``band`` of the mask's boundary can change: what is deeper inside stays, what is
farther outside does not come in.

One map would follow its own accidents, and a superpixel that leaks across a missing edge would take all of its pixels with
it. Averaged, an edge counts as much as there are scales that see it.

The threshold is below one half because patches that an edge runs through look like neither side: they end up in slivers of their own
along it, and the masks on both sides are too small by half a patch. (Growing all masks by a pixel does not help.)

A mask that lies inside another still does so afterwards, since neither shares nor bands shrink as a mask grows. At a threshold
of 0.5 or more, disjoint masks stay disjoint too. ``docs/notes/snap.md`` says what was tried and what it brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.masks.boxes import box_around, decode_box, encode_box
from ovskit.core.models.superpixels import Superpixels, superpixels
from ovskit.core.records import Int32, Mask, Rle, RunTable, UInt8
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.kernels import njit

if TYPE_CHECKING:
    from ovskit.core.refine.methods.snap import SnapOptions

Int64 = npt.NDArray[np.int64]

_TIE = 1e-9  # so that rounding never makes more than the threshold of what equals it


def snap_refiner(options: SnapOptions) -> Refiner:
    """The refiner ``snap``."""

    def refine(pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        if not table.areas.any():
            return [mask.rle for mask in masks]
        return snap_masks(table, superpixels(pixels, options.scales, options.smallest, options.most_pixels), options)

    return Refiner("snap", refine)


def snap_masks(table: RunTable, found: Superpixels, options: SnapOptions) -> list[Rle]:
    """The masks of ``table``, in their order, moved to the edges of ``found``, which are of the same image."""
    height, width = table.height, table.width
    reach = max(1, round(options.band * height)), max(1, round(options.band * width))
    window = np.ones((2 * reach[0] + 1, 2 * reach[1] + 1), np.uint8)
    covered = np.empty(found.sizes.shape, np.int64)
    refined = []
    for k in range(len(table)):
        box = box_around(table, k, max(reach) + 1)
        mask = decode_box(table, k, box)
        if mask.size:
            # OpenCV takes what lies beyond the box for neither side: the image's border is not a boundary of a mask.
            inside: UInt8 = np.asarray(cv2.erode(mask, window), np.uint8)
            near: UInt8 = np.asarray(cv2.dilate(mask, window), np.uint8)
            own = slice(table.offsets[k], table.offsets[k + 1])
            _cover(table.starts[own], table.ends[own], height, found.labels, found.rows, found.cols, covered)
            rows, cols = found.rows[box[0] : box[2]], found.cols[box[1] : box[3]]
            limit = options.threshold * len(found.labels) + _TIE
            _decide(inside, near, found.labels, rows, cols, covered, found.sizes, limit, mask)
        refined.append(encode_box(mask, box, height, width))
    return refined


@njit(nogil=True, cache=True)
def _cover(starts: Int64, ends: Int64, height: int, labels: Int32, rows: Int64, cols: Int64, covered: Int64) -> None:
    """Pixels of the runs in every superpixel of every map: ``covered`` (maps, n)."""
    covered[:] = 0
    for k in range(len(labels)):
        for r in range(len(starts)):
            at = starts[r]
            x = at // height
            while at < ends[r]:
                top = x * height
                stop = min(ends[r], top + height)
                column = labels[k, cols[x]]
                for y in range(at - top, stop - top):
                    covered[k, column[rows[y]]] += 1
                at = stop
                x += 1


@njit(nogil=True, cache=True)
def _decide(
    inside: UInt8, near: UInt8, labels: Int32, rows: Int64, cols: Int64, covered: Int64, sizes: Int64, limit: float, out: UInt8
) -> None:
    """``out`` (h, w): what is ``inside``, and of what is ``near`` the pixels whose shares sum to more than ``limit``."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if inside[y, x]:
                out[y, x] = 1
            elif near[y, x]:
                # Quotients and not products by an inverse: they never fall as the numerator rises.
                total = 0.0
                for k in range(len(labels)):
                    label = labels[k, cols[x], rows[y]]
                    total += covered[k, label] / sizes[k, label]
                out[y, x] = total > limit
            else:
                out[y, x] = 0
