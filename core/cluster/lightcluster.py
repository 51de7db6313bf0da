"""LightCluster (arXiv 2311.18628): what is foreground, by two clusters of attention keys at three levels.

Keys of a vision transformer's last block, scaled to length 1, fall into two clusters, foreground and background: over the whole data
set, over the images of one superclass (clusters of the images' CLS tokens), and over one image. Masks of the first two are
precise; the image's own say which cluster is the foreground, and which pieces are noise.

This module is one image: which side is which, and what the three levels make of it together. The paper gives little more than
the idea. Choices: the image's foreground is the cluster with fewer patches on the border, of two equal ones the smaller;
a data set's or superclass's is the cluster that shares more patches with its images' own foregrounds, summed; levels agree where data
set and superclass both say foreground; of that a connected piece stays if half of it is the image's own foreground; if nothing
is left the superclass's mask stands, then the image's; the margin of what agrees is the smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.formats.rle import RunTable, encode
from ovskit.core.records import Image, Int32, Mask, MaskSet
from ovskit.core.runtime.errors import UsageError

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Level = Literal["final", "image", "category", "dataset"]


@dataclass(frozen=True, slots=True)
class LightOptions:
    """Every value that the paper leaves open [choices], beside those of the clusterings.

    ``superclasses`` of the images, by their CLS. ``vote``: "and" (data set and superclass), or "two" of the three levels. A connected
    piece of at least ``min_patches`` stays if a share ``overlap`` of it is the image's own foreground; ``connectivity`` is 4 or 8.
    Raises UsageError for values that make no sense.
    """

    superclasses: int = 4
    vote: Literal["and", "two"] = "and"
    overlap: float = 0.5
    min_patches: int = 4
    connectivity: int = 8

    def __post_init__(self) -> None:
        if self.superclasses < 1:
            raise UsageError(f"superclasses {self.superclasses}: give at least 1")
        if self.vote not in ("and", "two"):
            raise UsageError(f"vote {self.vote}: choose and or two")
        if not 0 <= self.overlap <= 1:
            raise UsageError(f"overlap {self.overlap:g}: give a share from 0 to 1")
        if self.min_patches < 0:
            raise UsageError(f"min_patches {self.min_patches}: give at least 0")
        if self.connectivity not in (4, 8):
            raise UsageError(f"connectivity {self.connectivity}: choose 4 or 8")


class Margins(NamedTuple):
    """How far each patch is on the foreground's side, (h, w) float32 each: similarity to the foreground's centroid less that to the
    background's, by the centroids of the data set, of the image's superclass, and of the image itself."""

    dataset: Float32
    category: Float32
    image: Float32


def foreground_of_image(labels: Int32) -> int:
    """Which of the clusters 0 and 1 of a grid (h, w) is the foreground: the one with fewer patches on the border, of equal ones the
    smaller, of equally small ones 1."""
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    on_border = np.bincount(border, minlength=2)
    sizes = np.bincount(labels.ravel(), minlength=2)
    return 0 if (on_border[0], sizes[0]) < (on_border[1], sizes[1]) else 1


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
    return category if (category > 0).any() else image


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
    in patches' area goes, unless nothing else is there. A score is the mean margin of a piece, cut to 0 … 1 [choice].
    """
    soft = cv2.resize(margin, (image.width, image.height), interpolation=cv2.INTER_LINEAR)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((soft > 0).astype(np.uint8), connectivity=options.connectivity)
    least = options.min_patches * image.width * image.height / margin.size
    pieces = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= least]
    pieces = pieces or ([1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] if count > 1 else [])
    means = np.bincount(labels.ravel(), soft.ravel().astype(np.float64), minlength=count) / np.maximum(1, np.bincount(labels.ravel()))
    pieces.sort(key=lambda k: (-means[k], k))
    rles = [encode(labels == k) for k in pieces]
    table = RunTable(rles)
    return MaskSet(
        image,
        tuple(
            Mask(
                n + 1, image.id, rles[n], int(table.areas[n]), tuple(table.bboxes[n].tolist()),
                score=float(np.clip(means[k], 0, 1)), extra={"source": level},
            )
            for n, k in enumerate(pieces)
        ),
    )  # fmt: skip
