"""The features of the local step: crops of the photograph through the stream's own backbone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ovskit.core.cluster.crops import Crop
from ovskit.core.formats.photographs.photographs import APPLY, Photographs
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.records import Float, Image
from ovskit.core.runtime.errors import MissingInputError

_BATCH = 16  # crops per forward pass: bounds memory; row k of a pass depends on crop k alone


class CropExtractor:
    """Features of crops of the images that a feature stream names.

    ``root`` is where the images are, ``side`` the pixels a crop is resized to (SOHES: 256), rounded to the patch;
    ``exif`` is the stream's.
    """

    def __init__(self, backbone: Backbone, root: str, *, side: int = 256, max_pixels: int, exif: str = APPLY) -> None:
        self._backbone = backbone
        self._side = side
        self._photographs = Photographs(root, max_pixels=max_pixels, exif=exif)

    def __call__(self, image: Image, crops: Sequence[Crop]) -> Sequence[Float]:
        """Patch features (h, w, c) float32 of each crop. Raises MissingInputError or InputError if the image is not the stream's."""
        try:
            pixels = self._photographs.load(image)
        except MissingInputError as error:
            raise MissingInputError(f"{error} (needed for the local step; say where with --root, or use --no-local)") from None
        backbone = self._backbone
        stride = backbone.spec.stride
        side = max(1, round(self._side / stride)) * stride
        out: list[Float] = []
        for k in range(0, len(crops), _BATCH):
            chunk = crops[k : k + _BATCH]
            boxes = [np.ascontiguousarray(pixels[c.top : c.bottom, c.left : c.right]) for c in chunk]
            batch = torch.stack([backbone.prepare(box, side, side) for box in boxes])
            features: Float = backbone.extract(batch).patch.float().cpu().numpy()
            out += list(features)
        return out
