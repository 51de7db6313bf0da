"""LightCluster (arXiv 2311.18628): what is foreground, by two clusters of attention keys at three levels.

Keys of a vision transformer's last block, scaled to length 1, fall into two clusters, foreground and background: over the whole data
set, over the images of one superclass (clusters of the images' CLS tokens), and over one image. Masks of the first two are
precise; the image's own say which cluster is the foreground, and which pieces are noise.

This module is one image: which side is which, and what the three levels make of it together. The paper gives little more than
the idea; every choice is a field of ``LightOptions``, and docs/reference/choices.md says what each does. The margin of what agrees is
the smaller one, or of three levels the middle one [choice].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.cluster.options import Level, LightOptions, Side
from ovskit.core.formats.streams.soft_margin import KEY as SOFT
from ovskit.core.formats.streams.soft_margin import SoftMargin
from ovskit.core.masks.rle import encode
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Image, Int32, Mask, MaskSet

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
_AROUND = 2  # patches around a mask whose margin it keeps: as far as a CRF may move its boundary, and some [choice]


class Margins(NamedTuple):
    """How far each patch is on the foreground's side, (h, w) float32 each: similarity to the foreground's centroid less that to the
    background's, by the centroids of the data set, of the image's superclass, and of the image itself."""

    dataset: Float32
    category: Float32
    image: Float32


def foreground_of_image(labels: Int32, side: Side = "border") -> int:
    """Which of the clusters 0 and 1 of a grid (h, w) is the foreground, see ``LightOptions.side``; of equally small ones 1."""
    border = np.ones(labels.shape, bool)
    border[1:-1, 1:-1] = False
    on_border = np.bincount(labels[border], minlength=2)
    sizes = np.bincount(labels.ravel(), minlength=2)
    # Shares are compared as products of integers, without rounding.
    against = {"border": on_border, "share": on_border * sizes[::-1], "smaller": sizes}[side]
    return 0 if (against[0], sizes[0]) < (against[1], sizes[1]) else 1


def joined(margins: Margins, options: LightOptions) -> Float32:
    """The margin of the three levels together, (h, w): above 0 on foreground."""
    dataset, category, image = margins
    own = image > 0
    if options.vote == "and":
        margin = np.minimum(dataset, category)
    else:
        margin = np.median(np.stack(margins), axis=0).astype(np.float32)
    kept = _supported(margin > 0, own, options)
    if kept.any():
        return np.where(kept, margin, -np.abs(margin))
    if options.fallback == "none":
        return -np.abs(margin)
    return category if options.fallback == "category" and (category > 0).any() else image


def _supported(mask: Bool, own: Bool, options: LightOptions) -> Bool:
    """The connected pieces of ``mask`` of which enough is in ``own``."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=options.connectivity)
    sizes = np.bincount(labels.ravel(), minlength=count)
    shared = np.bincount(labels.ravel(), own.ravel().astype(np.float64), minlength=count)
    stays = (sizes >= options.min_patches) & (shared >= options.overlap * sizes)
    stays[0] = False
    kept: Bool = stays[labels]
    return kept


def masks_of_margin(image: Image, margin: Float32, level: Level, options: LightOptions) -> MaskSet:
    """The connected pieces of the foreground in the image's own pixels, the highest score first.

    The margin is scaled up bilinearly and cut at 0 [paper: bilinear; the CRF after it is ovs-refine's]. A piece below ``min_patches``
    in patches' area goes, unless nothing else is there. A score is the mean margin of a piece, cut to 0 … 1 [choice]. A mask's soft
    margin is that of the patches below its box and of ``_AROUND`` on each side.
    """
    soft = cv2.resize(margin, (image.width, image.height), interpolation=cv2.INTER_LINEAR)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((soft > 0).astype(np.uint8), connectivity=options.connectivity)
    least = options.min_patches * image.width * image.height / margin.size
    pieces = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= least]
    pieces = pieces or ([1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] if count > 1 else [])
    means = np.bincount(labels.ravel(), soft.ravel().astype(np.float64), minlength=count) / np.maximum(1, np.bincount(labels.ravel()))
    pieces.sort(key=lambda k: (-means[k], k))
    rles = [encode(labels == k) for k in pieces]
    table = run_table(rles)
    boxes = [(x, y, width, height) for x, y, width, height in table.bboxes.tolist()]
    return MaskSet(
        image,
        tuple(
            Mask(
                n + 1, image.id, rles[n], int(table.areas[n]), boxes[n], score=float(np.clip(means[k], 0, 1)),
                extra={"source": level, SOFT: _soft(image, margin, boxes[n])} if options.soft else {"source": level},
            )
            for n, k in enumerate(pieces)
        ),
        table,
    )  # fmt: skip


def _soft(image: Image, margin: Float32, bbox: Sequence[float]) -> dict[str, Any]:
    """The margin of the patches that ``bbox`` (x, y, width, height) in pixels lies on, and around them."""
    at, to = [], []
    for first, length, side, cells in (
        (bbox[1], bbox[3], image.height, margin.shape[0]),
        (bbox[0], bbox[2], image.width, margin.shape[1]),
    ):
        at.append(max(0, int(first * cells / side) - _AROUND))
        to.append(min(cells, math.ceil((first + length) * cells / side) + _AROUND))
    cut = margin[at[0] : to[0], at[1] : to[1]]
    return SoftMargin((margin.shape[0], margin.shape[1]), (at[0], at[1]), cut).to_json()
