"""A sample of the patches of all images, to fit centroids on.

As many patches of each image as leave room for all: memory goes with the sample, not with the images.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ovskit.core.records import FeatureMap, Float
from ovskit.core.runtime.errors import InputError

Float32 = npt.NDArray[np.float32]

_FIRST_SHARE = 256  # patches of an image that are kept as long as there is room


class PatchSample:
    """Patches of all images, at most ``room`` of them, as many of each image; and the images' CLS vectors, if there are any.

    Patches are scaled to length 1 unless ``scaled`` says otherwise. A function of the images, their ids and the seed, not of how many
    are worked on at once.
    """

    def __init__(self, room: int, seed: int, *, scaled: bool = True) -> None:
        self._room, self._seed, self._share, self._scaled = room, seed, _FIRST_SHARE, scaled
        self._patches: dict[int, npt.NDArray[np.float16]] = {}
        self._cls: dict[int, Float32] = {}

    def __len__(self) -> int:
        return len(self._patches)

    def add(self, features: FeatureMap) -> None:
        """Keep some of an image's patches."""
        rows = features.patch.reshape(-1, features.patch.shape[2])
        order = np.random.default_rng((self._seed, features.image.id)).permutation(len(rows))[:_FIRST_SHARE]
        # In the order drawn, so that the first few are a sample as well.
        kept = unit_rows(rows[order]) if self._scaled else rows[order]
        self._patches[features.image.id] = kept.astype(np.float16)[: self._share]
        if features.cls is not None:
            self._cls[features.image.id] = unit_rows(features.cls[None])[0]
        while sum(map(len, self._patches.values())) > self._room and self._share > 1:
            self._share //= 2
            self._patches = {number: kept[: self._share].copy() for number, kept in self._patches.items()}

    def rows(self, images: Iterable[int]) -> Float32:
        """The patches kept of some images, (n, c)."""
        return np.concatenate([self._patches[number] for number in images]).astype(np.float32)

    def images(self) -> list[int]:
        """Ids, in order."""
        return sorted(self._patches)

    def cls(self) -> Float32:
        """The CLS vectors in order of the images' ids, (images, c). Raises InputError if an image has none."""
        if len(self._cls) < len(self._patches):
            raise InputError("superclasses are clusters of the images' CLS vectors, which these features have not: extract them with --cls")
        return np.stack([self._cls[number] for number in self.images()])


def unit_rows(rows: Float) -> Float32:
    """Rows (n, c) scaled to length 1, float32; zeros stay."""
    rows = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("nc,nc->n", rows, rows, dtype=np.float64))
    return (rows / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
