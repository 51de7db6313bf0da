"""Pixel-adaptive mask refinement: every pixel comes to believe what pixels near it believe that look like it.

Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, on pixel-adaptive mask refinement. A mask begins with
belief 1 inside and 0 outside; t times each pixel takes the weighted mean of its neighbours' beliefs, the eight neighbours at each of some
dilations. The weights are a softmax over the neighbours of

    - mean over colours of |x_i - x_j| / (1e-8 + 0.1 σ_i),

as public code has it, where the paper divides by σ². σ_i is the standard deviation of a colour over the pixel and its neighbours, in which
the pixel counts once for each dilation [choice]. Beyond the border of the image lies what is on it [choice].

A belief reaches no farther than iterations × the largest dilation, so each mask is worked on in its box with that margin, and the result is
that of the whole image. A pixel is in a mask alone if it is believed more than not; of masks together it goes to the one most believed
there, unless what is in none of them is believed at least as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ovskit.core.masks import rle
from ovskit.core.masks.boxes import Box, box_around, decode_box, encode_box
from ovskit.core.records import Mask, Rle, RunTable, UInt8
from ovskit.core.refine import pamr_kernels as kernels
from ovskit.core.refine.crop_groups import crop_groups
from ovskit.core.refine.refiner import Refiner

if TYPE_CHECKING:
    from ovskit.core.refine.methods.pamr import PamrOptions

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_MOST_PIXELS = 1 << 23  # pixels of crops that are worked on together, about 12 bytes each
_MOST_WEIGHTS = 1 << 24  # weights that are kept, 64 MB: those of a megapixel with 16 neighbours
_FLOOR, _SHARE = 1e-8, 0.1  # of the denominator [code]
_EIGHT = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def pamr_refiner(options: PamrOptions) -> Refiner:
    """The refiner ``pamr``."""
    around = [(y * step, x * step) for step in options.dilations for y, x in _EIGHT]
    offsets = np.array(around, np.int64)
    samples = np.array(around + [(0, 0)] * len(options.dilations), np.int64)
    margin = options.iterations * max(options.dilations)

    def refine(pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        if not masks:
            return []
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
        scales = kernels.colour_scales(planes, samples, _FLOOR, _SHARE)
        boxes = [box_around(table, k, margin) for k in range(len(masks))]
        together = options.together == "yes" or (options.together == "auto" and _apart(masks, table))
        found = _Shared(table.height, table.width) if together else None
        refined = [mask.rle for mask in masks]
        for members in crop_groups(boxes, _MOST_PIXELS):
            own = [decode_box(table, k, boxes[k]) for k in members]
            beliefs = beliefs_of(planes, scales, offsets, [boxes[k] for k in members], own, options.iterations)
            for k, belief in zip(members, beliefs, strict=True):
                if found is None:
                    refined[k] = encode_box(belief > 0.5, boxes[k], table.height, table.width)
                else:
                    found.add(k, boxes[k], belief)
        if found is None:
            return refined
        owner = found.owners()
        return [_of_owner(owner, k, box, table) for k, box in enumerate(boxes)]

    return Refiner("pamr", refine)


def beliefs_of(
    planes: Float32, scales: Float32, offsets: Int64, boxes: Sequence[Box], masks: Sequence[UInt8 | Float32], iterations: int
) -> list[Float32]:
    """The beliefs in each of ``masks``, which begin as what it is in its box, 0 to 1, after ``iterations``: float32 of its shape.

    ``planes`` (3, H, W) are the colours, ``scales`` those of ``pamr_kernels.colour_scales``, ``offsets`` (n, 2) the neighbours' (dy, dx).
    """
    starts = np.cumsum([0] + [one.size for one in masks])
    flat = np.concatenate([one.ravel() for one in masks]).astype(np.float32)
    found = kernels.spread(planes, scales, offsets, np.array(boxes, np.int64), starts, flat, iterations, _MOST_WEIGHTS)
    return [found[starts[k] : starts[k + 1]].reshape(one.shape) for k, one in enumerate(masks)]


class _Shared:
    """The pixels of an image, of which each goes to the mask that is most believed there, the first of several."""

    def __init__(self, height: int, width: int) -> None:
        self._most, self._sum = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
        self._owner = np.full((height, width), -1, np.int32)

    def add(self, k: int, box: Box, belief: Float32) -> None:
        """Take in mask ``k``'s ``belief`` in its ``box``."""
        part = np.s_[box[0] : box[2], box[1] : box[3]]
        self._sum[part] += belief
        better = belief > self._most[part]
        self._most[part][better] = belief[better]
        self._owner[part][better] = k

    def owners(self) -> npt.NDArray[np.int32]:
        """The mask of each pixel, int32 (H, W); -1 where what is in no mask is believed as much as any."""
        return np.where(self._most > 1 - self._sum, self._owner, -1)


def _of_owner(owner: npt.NDArray[np.int32], k: int, box: Box, table: RunTable) -> Rle:
    top, left, bottom, right = box
    return encode_box(owner[top:bottom, left:right] == k, box, table.height, table.width)


def _apart(masks: Sequence[Mask], table: RunTable) -> bool:
    """Whether no two masks overlap."""
    return int(table.areas.sum()) == rle.area(rle.union([mask.rle for mask in masks]))
