"""From cosines to classes: which word is best at every pixel, how probable it is, and what is background.

As in the code of the methods [code: SCLIP's line; LANGUAGE F.1]: a softmax over all words of ``scale`` times their cosines, a class as
probable as its best word, and background, or nothing where the label space has none, where the best is below a threshold. A softmax over
classes, each with the cosine of its best word, is what ``ovs-label`` does with a mask (``Words.probabilities``); it gives the same classes
and other probabilities.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ovskit.core.models.words import Words
from ovskit.core.predict.dense.mosaic import Mosaic
from ovskit.core.records import Int32

Float32 = npt.NDArray[np.float32]


class Decided(NamedTuple):
    """The best class of every pixel: ``place`` (H, W) int32 among ``Words.classes``, and its ``probability`` (H, W) float32."""

    place: Int32
    probability: Float32


class Decisions:
    """Decides by ``words``; ``scale`` is what cosines are multiplied with; ``over`` says what the softmax is taken over."""

    def __init__(self, words: Words, *, scale: float, over_classes: bool, device: torch.device) -> None:
        self.words, self._scale, self._over_classes = words, scale, over_classes
        self.rows = torch.from_numpy(words.rows).to(device)
        bounds = np.append(words.first, len(words.rows))
        self._class_of = torch.from_numpy(np.repeat(np.arange(len(words.first)), np.diff(bounds))).to(device)

    def cosines(self, vectors: torch.Tensor) -> torch.Tensor:
        """(h, w, words) of vectors (h, w, d) of length 1."""
        return vectors.float() @ self.rows.T

    def decide(self, mosaic: Mosaic, height: int, width: int) -> Decided:
        """The best class of every pixel of an image, by the cosines in ``mosaic``."""
        places, chances = [], []
        for _, _, cosines in mosaic.bands(height, width):
            place, chance = self._best(cosines)
            places.append(place.to(torch.int32).cpu())
            chances.append(chance.cpu())
        return Decided(torch.cat(places).numpy(), torch.cat(chances).numpy())

    def _best(self, cosines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best, word = cosines.max(dim=2)
        if self._over_classes:
            index = self._class_of.expand(cosines.shape)
            start = torch.full((*cosines.shape[:2], len(self.words.first)), -2.0, device=cosines.device)
            cosines = start.scatter_reduce(2, index, cosines, "amax")
        chance = 1 / cosines.sub(best.unsqueeze(2)).mul_(self._scale).exp_().sum(dim=2)
        return self._class_of[word], chance


def class_ids(decided: Decided, words: Words, min_prob: float) -> Int32:
    """(H, W) int32 ids of classes: those below ``min_prob`` are the background, or -1, nothing, where the label space has none."""
    ids = np.array([one.id for one in words.classes], np.int32)[decided.place]
    if min_prob > 0:
        ids[decided.probability < min_prob] = -1 if words.background is None else words.background
    return ids
