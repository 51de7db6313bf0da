"""What a method that names patches is to the run around it (``dense.job``): windows of an image in, vectors of patches out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.records import UInt8

if TYPE_CHECKING:
    import torch


class PatchNamer(Protocol):
    """Vectors of patches in the space of words.

    ``spec`` is the tower's. Sides of windows are multiples of ``spec.stride``. With ``wants_regions`` each window comes with the regions
    that lie in it.
    """

    spec: BackboneSpec
    device: torch.device
    wants_regions: bool

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """A photograph (H, W, 3) uint8 resized to (3, height, width) uint8; thread-safe. Windows are cut out of it."""
        ...

    def vectors(self, windows: torch.Tensor, regions: torch.Tensor | None = None) -> torch.Tensor:
        """(b, h, w, d) float32 of length 1 for windows (b, 3, H, W) uint8 on the CPU; never NaN, whatever the pixels.

        ``regions`` (b, H, W) int32 numbers the regions of each window's pixels from 0; -1 is no region. On a CPU row k depends on window
        k alone.
        """
        ...
