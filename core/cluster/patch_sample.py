"""A sample of the patches of all images, to fit centroids on.

As many patches of each image as leave room for all: memory goes with the sample, not with the images.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ovskit.core.records import FeatureMap, Float
from ovskit.core.runtime.errors import InputError

Float32 = npt.NDArray[np.float32]

_FIRST_SHARE = 256  # patches of an image that are kept as long as there is room
_ALL = sys.maxsize


class PatchSample:
    """Patches of all images, at most ``room`` of them, as many of each image; and those images' CLS vectors, if there are any.

    A ``room`` of 0 is for all of them. With more images than ``room`` some have none, drawn by their id. An image with infinities or NaN
    among what would be kept, or with other channels than the first, is left out: whoever looks at all of it, later, says so. Patches
    are scaled to length 1 unless ``scaled`` says otherwise. A function of the images, their ids and the seed, not of the order that they
    come in.
    """

    def __init__(self, room: int, seed: int, *, scaled: bool = True) -> None:
        self._room, self._seed, self._scaled = room or _ALL, seed, scaled
        self._share = _FIRST_SHARE if room else _ALL
        self._widths: tuple[int, int | None] | None = None
        self._patches: dict[int, Float] = {}
        self._cls: dict[int, Float32] = {}
        self._last: list[tuple[float, int]] = []  # a heap of the images, the first to go in front
        self._count = 0

    def __len__(self) -> int:
        return len(self._patches)

    def add(self, features: FeatureMap) -> None:
        """Keep some of an image's patches."""
        number = features.image.id
        rows = features.patch.reshape(-1, features.patch.shape[2])
        random = np.random.default_rng((self._seed, number))
        # In the order drawn, so that the first few are a sample as well.
        kept = rows[random.permutation(len(rows))[: self._share]]
        finite = np.isfinite(kept).all() and (features.cls is None or np.isfinite(features.cls).all())
        widths = (rows.shape[1], None if features.cls is None else len(features.cls))
        self._widths = self._widths or widths
        if not finite or widths != self._widths:
            return
        self._patches[number] = unit_rows(kept).astype(np.float16) if self._scaled else kept.astype(np.float32)
        if features.cls is not None:
            self._cls[number] = unit_rows(features.cls[None])[0]
        heapq.heappush(self._last, (-random.random(), number))
        self._count += len(kept)
        while self._count > self._room and self._share > 1:
            self._share //= 2
            self._patches = {number: kept[: self._share].copy() for number, kept in self._patches.items()}
            self._count = sum(map(len, self._patches.values()))
        while self._count > self._room:
            _, gone = heapq.heappop(self._last)
            self._count -= len(self._patches.pop(gone))
            self._cls.pop(gone, None)

    def rows(self, images: Iterable[int]) -> Float32:
        """The patches kept of some images, (n, c)."""
        return np.concatenate([self._patches[number] for number in images]).astype(np.float32)

    def images(self) -> list[int]:
        """Ids, in order."""
        return sorted(self._patches)

    def cls(self) -> Float32:
        """The CLS vectors in order of the images' ids, (images, c). Raises InputError if an image has none."""
        if len(self._cls) < len(self._patches):
            raise InputError(
                "superclasses are clusters of the images' CLS vectors, which these features do not have: extract them with --cls (in NumPy "
                "arrays of shape (n + 1, c) the first row is CLS)"
            )
        return np.stack([self._cls[number] for number in self.images()])


def unit_rows(rows: Float) -> Float32:
    """Rows (n, c) scaled to length 1, float32; zeros stay."""
    rows = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("nc,nc->n", rows, rows, dtype=np.float64))
    return (rows / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
