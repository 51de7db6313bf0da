"""ClearCLIP (Lan et al., ECCV 2024): queries attend to queries in the last block, without residual and feed-forward."""

from __future__ import annotations

import torch

from ovskit.core.predict.dense.attention import by_queries
from ovskit.core.predict.dense.blocks import TowerNamer


class Clear(TowerNamer):
    """x = W_o·softmax(q·qᵀ/√d)·v + b_o, then the head. CLS is among the keys [code]."""

    needs_attention = "clear"

    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """See ``TowerNamer.named``."""
        last, prefix = self.tower.depth - 1, self.tower.prefix
        block = self.tower.attended(last, self.entering_last(windows))
        return self.headed(self.tower.joined(last, by_queries(block, prefix)), self.grid(windows))
