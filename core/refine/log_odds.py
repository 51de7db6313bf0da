"""What a CRF is told of every pixel before it looks at the image: the log-odds that it is in the mask.

A mask alone says the same of all its pixels: ± log(c / (1 - c)), c = ``confidence``. One with a soft margin (``formats.soft_margin``) says
less where that is less sure, and never more:

* Where a mask is made of whole cells of a grid, bilinear scaling of the cells gives every pixel a share p of cells that are in the mask,
  and that is its probability: log(p / (1 - p)), as in the CRF that starts from patches scaled up bilinearly [code: HASSOD]. If another
  stage has moved the boundary, so that the mask cuts cells, it is sure of all its pixels again: unsure of edges that were found in the
  image, it lost more than it won [choice].
* Where the cells have margins m, ± min(log(c / (1 - c)), s |m| / mean |m|), bilinear between them, the mean over the mask's own cells and
  those around it [choice: LightCluster's paper says "the soft margin, upsampled bilinearly" only]. Which side a pixel is on is the mask's
  word, so the margin stays of use where the boundary has moved.

A small mask is sure of all its pixels too: its few cells are all edge, and the image would take most of them [choice].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.streams.soft_margin import SoftGrid, read_soft_margin
from ovskit.core.masks.boxes import Box
from ovskit.core.records import Float, Mask, UInt8

Float32 = npt.NDArray[np.float32]


def log_odds(mask: Mask, inside: UInt8, box: Box, confidence: float, sharpness: float, smallest: int) -> Float32:
    """Log-odds that each pixel of ``box`` (top, left, bottom, right) is in the mask: float32 (bottom - top, right - left).

    ``inside`` is the mask there, of 0 and 1. ``sharpness`` s is what a cell of the mean margin is sure of; of ``inf``, in a mask of fewer
    than ``smallest`` pixels, or where it has no soft margin, every pixel is equally sure. Raises InputError if the soft margin is damaged.
    """
    certain = math.log(confidence / (1 - confidence))
    side = np.where(inside != 0, np.float32(1), np.float32(-1))
    says = None if math.isinf(sharpness) or mask.area < smallest else _says(mask, inside, side, box, sharpness)
    odds = certain * side if says is None else np.clip(says, -certain, certain)
    return odds.astype(np.float32)


def _says(mask: Mask, inside: UInt8, side: Float32, box: Box, sharpness: float) -> Float | None:
    """What the soft margin says of every pixel, up to infinity; None if it has no effect. ``side`` is 1 inside the mask, -1 outside."""
    height, width = mask.rle.height, mask.rle.width
    soft = read_soft_margin(mask.extra, f"mask {mask.id}", height, width)
    if soft is None:
        return None
    if isinstance(soft, SoftGrid):
        cells = soft.margin_of(inside, box, height, width)
        if not (np.abs(cells.values) == 1).all():
            return None
        margin = np.clip(cells.in_box(box, height, width), -1, 1)  # 2 p - 1
        with np.errstate(divide="ignore"):
            return np.log1p(margin) - np.log1p(-margin)
    mean = float(np.abs(soft.values).mean(dtype=np.float64))
    if mean == 0:
        return None
    return side * (sharpness * (np.abs(soft.in_box(box, height, width)) / np.float64(mean)))
