"""Bringing a photograph to a model's input size."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ovskit.core.models.backbones.interface import Interpolation
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize_rgb(image: UInt8, height: int, width: int, interpolation: Interpolation) -> torch.Tensor:
    """An RGB image (H, W, 3) uint8 as a contiguous (3, height, width) uint8 tensor on the CPU; aspect is not kept.

    Pillow's resampling: antialiased when shrinking, rounded to uint8, the same that the models' own preprocessing
    uses. Thread-safe; Pillow releases the GIL while it works. An image of the right size is copied. Raises UsageError for an
    array of another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        shape = "×".join(map(str, image.shape))
        raise UsageError(f"images are RGB, (H, W, 3) of uint8, 0 to 255; this one is {shape} of {image.dtype}")
    if image.shape[:2] != (height, width):
        image = np.asarray(Image.fromarray(image).resize((width, height), _RESAMPLING[interpolation]))
    return torch.from_numpy(image.transpose(2, 0, 1).copy())
