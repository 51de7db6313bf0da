"""SCLIP (Wang et al., ECCV 2024): correlative self-attention in place of the last block's own; the rest of the block stays."""

from __future__ import annotations

import torch

from ovskit.core.predict.dense.attention import by_queries_and_keys
from ovskit.core.predict.dense.blocks import TowerNamer


class Sclip(TowerNamer):
    """y = x + W_o·(softmax(q·qᵀ/√d) + softmax(k·kᵀ/√d))·v + b_o; y + FFN(y), then the head. CLS is among the keys [code]."""

    needs_attention = "sclip"

    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """See ``TowerNamer.named``."""
        last, prefix = self.tower.depth - 1, self.tower.prefix
        x = self.entering_last(windows)
        mixed = by_queries_and_keys(self.tower.attended(last, x), prefix)
        x = x[:, prefix:] + self.tower.joined(last, mixed)
        return self.headed(x + self.tower.feed_forward(last, x), self.grid(windows))
