"""The common way of everything that names patches with a ``DenseTower``: windows in, batches, vectors of length 1 out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.dense import DenseTower
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError


class TowerNamer(ABC):
    """A ``PatchNamer`` by a tower; a method says in ``named`` how."""

    wants_regions: bool = False
    needs_attention: ClassVar[str] = ""  # the method's name, if it takes the last block's attention apart

    def __init__(self, tower: DenseTower) -> None:
        """Raises UsageError for a tower without blocks where the method needs one."""
        if self.needs_attention and not tower.depth:
            raise UsageError(
                f"--method {self.needs_attention}: the image tower of {tower.spec.name} is convolutional, without attention to change: "
                "give a ViT, or plain, proxy or corr"
            )
        self.tower, self.spec, self.device = tower, tower.spec, tower.device

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``PatchNamer.prepare``."""
        return self.tower.prepare(image, height, width)

    def vectors(self, windows: torch.Tensor, regions: torch.Tensor | None = None) -> torch.Tensor:
        """See ``PatchNamer.vectors``; on the tower's device. Raises UsageError for windows that are not uint8 of whole patches."""
        single = self.device.type == "cpu"  # so that the bytes of a row do not depend on the batch
        parts = [slice(k, k + 1) for k in range(len(windows))] if single else [slice(None)]
        with torch.inference_mode():
            found = [self.named(windows[part], None if regions is None else regions[part]) for part in parts]
            return F.normalize(torch.cat(found).float(), dim=-1)

    @abstractmethod
    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """Vectors (b, h, w, d) in the space of words, of any length; arguments are those of ``vectors``."""

    def grid(self, windows: torch.Tensor) -> tuple[int, int]:
        """Rows and columns of the tower's patches in each window."""
        return windows.shape[2] // self.spec.stride, windows.shape[3] // self.spec.stride

    def entering_last(self, windows: torch.Tensor) -> torch.Tensor:
        """The tokens (b, prefix + n, c) that enter the last block, or the last map of a tower without blocks."""
        x = self.tower.embed(windows)
        for index in range(self.tower.depth - 1):
            x = self.tower.block(index, x)
        return x

    def headed(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Patches (b, n, c) in the space of words, on their grid: (b, h, w, d)."""
        return self.tower.head(x).unflatten(1, grid)
