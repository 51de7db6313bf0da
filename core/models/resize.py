"""Bringing a photograph to a model's input size."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ovskit.core.models.backbone import Interpolation
from ovskit.core.records import UInt8

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def resize_rgb(image: UInt8, height: int, width: int, interpolation: Interpolation) -> torch.Tensor:
    """An RGB image (H, W, 3) uint8 as a contiguous (3, height, width) uint8 tensor on the CPU; aspect is not kept.

    Pillow's resampling: antialiased when shrinking, rounded to uint8, the same that the models' own preprocessing
    uses. Thread-safe; Pillow releases the GIL while it works. An image of the right size is copied.
    """
    if image.shape[:2] != (height, width):
        image = np.asarray(Image.fromarray(image).resize((width, height), _RESAMPLING[interpolation]))
    return torch.from_numpy(image.transpose(2, 0, 1).copy())
