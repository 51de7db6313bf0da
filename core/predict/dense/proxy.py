"""ProxyCLIP (Lan et al., ECCV 2024): another network's patches say what attends to what, and CLIP's values are what is mixed."""

from __future__ import annotations

import torch

from ovskit.core.models.backbones.dense import DenseTower
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.predict.dense.attention import mix, proxy_weights
from ovskit.core.predict.dense.blocks import TowerNamer
from ovskit.core.predict.dense.proxies import common_grid, patch_rows, values_at


class Proxy(TowerNamer):
    """x = W_o·(A·V) + b_o without residual and feed-forward, then the head; A of ``attention.proxy_weights`` is every head's.

    ``proxy`` is loaded with the facet ``token`` of the last layer; the features of the built-in descriptor, which has no facets, are used
    as they are. V are the patches' values in the last block, resized to the proxy's grid where that is the finer; of a tower without
    blocks, its last map. Vectors come on the finer grid.
    """

    def __init__(self, tower: DenseTower, proxy: Backbone, *, beta: float = 1.2, gamma: float = 3.0) -> None:
        super().__init__(tower)
        self._proxy, self._beta, self._gamma = proxy, beta, gamma

    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """See ``TowerNamer.named``."""
        own = self.grid(windows)
        rows, grid = common_grid(patch_rows(self._proxy, windows).to(self.device), own)
        weights = proxy_weights(rows, self._beta, self._gamma)
        x = self.entering_last(windows)
        if not self.tower.depth:
            return self.headed(mix(weights, values_at(x, own, grid)), grid)
        last = self.tower.depth - 1
        values = self.tower.attended(last, x).value[:, :, self.tower.prefix :]
        mixed = mix(weights, values_at(side_by_side(values), own, grid))
        return self.headed(self.tower.joined(last, in_heads(mixed, self.tower.heads)), grid)


def side_by_side(values: torch.Tensor) -> torch.Tensor:
    """The heads of (b, heads, n, d) side by side: (b, n, heads·d)."""
    return values.transpose(1, 2).flatten(2)


def in_heads(values: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of ``side_by_side``, without a copy."""
    return values.unflatten(2, (heads, -1)).transpose(1, 2)
