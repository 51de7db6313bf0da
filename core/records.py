"""The nouns that travel between rooms: images, feature maps, regions, masks.

Frozen dataclasses without behaviour beyond what follows from their fields. This module is the ground floor: it
imports nothing of ovskit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating[Any]]
UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Image:
    """Who an image is: everything about it but its pixels.

    ``id`` is its 1-based place in the sorted full input (or the id a COCO file gives it), ``file_name`` its path relative to the input's
    root, ``width`` and ``height`` its size in pixels. ``orientation`` is the EXIF orientation, 2 to 8, that was undone when it was opened,
    so that this size and all masks are of the upright picture; 1 where there was none, or where it was ignored. It says how the picture was
    read, not which one it is.
    """

    id: int
    file_name: str
    width: int
    height: int
    orientation: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """Patch features of one image, as read from or written to a feature stream.

    ``patch`` is (h, w, c), row-major, float16 or float32 (bfloat16 is stored as float32), not normalised; the grid
    covers the whole image whatever its aspect. ``cls`` is (c,) or None.
    """

    image: Image
    patch: Float
    cls: Float | None = None


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The class of every pixel of one image: ``labels`` (height, width) int32, ids from 0 to 65535, -1 where there is none."""

    image: Image
    labels: Int32


@dataclass(frozen=True, slots=True)
class ImageLabel:
    """A class that a whole image may be of: its ``id`` and ``name`` in a label space, and its ``score``, the higher the better."""

    id: int
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """The classes that an image may be of, the best first, without one twice; none where nothing is known of it."""

    image: Image
    labels: tuple[ImageLabel, ...]


@dataclass(frozen=True, slots=True)
class EmbeddingBlock:
    """Pooled embeddings of consecutive images: ``rows[k]`` (n, c) belongs to ``images[k]``."""

    images: tuple[Image, ...]
    rows: Float


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as COCO's compressed run-length encoding: column-major runs, the first of zeros.

    ``height`` × ``width`` pixels; ``counts`` is COCO's ASCII string. Anything that reads an ``Rle`` from outside
    validates it first (``masks.rle.validate``).
    """

    height: int
    width: int
    counts: bytes


@dataclass(frozen=True, slots=True)
class Mask:
    """One annotation of a masks stream.

    ``bbox`` is COCO's (x, y, width, height) in pixels, ``area`` counts pixels, ``score`` is in [0, 1] where a method
    has one. ``extra`` keeps every other key of the annotation (``threshold``, ``source``, ``level`` …), so a stage
    passes on what it does not know.
    """

    id: int
    image_id: int
    rle: Rle
    area: int
    bbox: tuple[float, float, float, float]
    category_id: int = 1
    iscrowd: int = 0
    score: float | None = None
    parent_id: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RunTable:
    """The runs of many masks of one size, unpacked once for all work on them.

    ``height`` and ``width`` in pixels (0 for a table made of nothing); foreground of mask k as ascending, disjoint ``[start, end)`` of
    column-major pixel indices, ``starts[offsets[k]:offsets[k + 1]]`` and ``ends[…]``, int64; ``areas`` int64 (n,) in pixels; ``bboxes``
    float64 (n, 4), COCO's (x, y, width, height). Not to be changed after it is made. ``masks.runs`` makes them.
    """

    height: int
    width: int
    starts: Int64
    ends: Int64
    offsets: Int64
    areas: Int64
    bboxes: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.areas)


@dataclass(frozen=True, slots=True)
class MaskSet:
    """All masks of one image, in the order of the stream.

    ``runs`` are the masks' own, in their order, where whoever made the set had them at hand, as the reader of a masks stream has:
    ``masks.runs.table_of`` gives them in any case. ``replace`` keeps them, so give others, or None, with masks of other outlines.
    """

    image: Image
    masks: tuple[Mask, ...]
    runs: RunTable | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.runs is not None and len(self.runs) != len(self.masks):
            raise ValueError(f"runs of {len(self.runs)} masks for a set of {len(self.masks)}")
