"""What a CRF is told of every pixel before it looks at the image: the log-odds that it is in the mask.

A mask alone says the same of all its pixels: ± log(c / (1 - c)), c = ``confidence``. A mask with a soft margin (``formats.soft_margin``)
is as sure as the margin is wide, and no surer than that: ± min(log(c / (1 - c)), s |m| / mean |m|), bilinear between the cells m, the
mean over the mask's own cells and those around it [choice: LightCluster's paper says "the soft margin, upsampled bilinearly" only].
Which side a pixel is on is always the mask's word, so a margin stays of use after another stage has moved the boundary.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.rle_boxes import Box
from ovskit.core.formats.soft_margin import SoftGrid, read_soft_margin
from ovskit.core.records import Float, Mask, UInt8

Float32 = npt.NDArray[np.float32]


def log_odds(mask: Mask, inside: UInt8, box: Box, confidence: float, sharpness: float, smallest: int) -> Float32:
    """Of every pixel of ``box`` (top, left, bottom, right), float32 (bottom - top, right - left).

    ``inside`` is the mask there, of 0 and 1. ``sharpness`` s is what a cell of the mean margin is sure of; of ``inf``, in a mask of fewer
    than ``smallest`` pixels, or where it has no soft margin, every pixel is equally sure. Raises InputError if the soft margin is damaged.
    """
    certain = np.float32(math.log(confidence / (1 - confidence)))
    says = None if math.isinf(sharpness) or mask.area < smallest else _says(mask, inside, box, sharpness)
    sure = certain if says is None else np.minimum(certain, says)
    return np.where(inside != 0, sure, -sure).astype(np.float32)


def _says(mask: Mask, inside: UInt8, box: Box, sharpness: float) -> Float | None:
    """How sure the soft margin is of every pixel, up to infinity; None if it says nothing."""
    height, width = mask.rle.height, mask.rle.width
    soft = read_soft_margin(mask.extra, f"mask {mask.id}", height, width)
    if soft is None:
        return None
    if isinstance(soft, SoftGrid):
        margin = soft.margin_of(inside, box, height, width)
        if not (np.abs(margin.values) == 1).all():
            return None
        share = np.abs(margin.in_box(box, height, width))
        with np.errstate(divide="ignore"):
            return np.log1p(share) - np.log1p(-np.minimum(share, 1))  # p = (1 + share) / 2
    mean = float(np.abs(soft.values).mean(dtype=np.float64))
    if mean == 0:
        return None
    return sharpness * (np.abs(soft.in_box(box, height, width)) / np.float64(mean))
