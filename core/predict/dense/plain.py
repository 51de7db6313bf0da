"""CLIP alone: the last block as it is, and the head that was trained for the class token applied to every patch."""

from __future__ import annotations

import torch

from ovskit.core.predict.dense.blocks import TowerNamer


class Plain(TowerNamer):
    """What the other methods are compared with. Of a tower without blocks: the head applied to every place of the last map."""

    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """See ``TowerNamer.named``."""
        x = self.entering_last(windows)
        if self.tower.depth:
            x = self.tower.block(self.tower.depth - 1, x)
        return self.headed(x[:, self.tower.prefix :], self.grid(windows))
