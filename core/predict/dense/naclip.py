"""NACLIP (Hajimiri et al., WACV 2025): keys attend to keys, with a bonus for neighbours, without residual and feed-forward."""

from __future__ import annotations

import torch

from ovskit.core.models.backbones.dense import DenseTower
from ovskit.core.predict.dense.attention import by_keys, neighbourhood
from ovskit.core.predict.dense.blocks import TowerNamer


class Naclip(TowerNamer):
    """x = W_o·softmax(k·kᵀ/√d + ω)·v + b_o, then the head; ω is a Gaussian of ``sigma`` patches (``attention.neighbourhood``).

    CLS is among the keys, with ω = 0 [code].
    """

    needs_attention = "naclip"

    def __init__(self, tower: DenseTower, *, sigma: float = 5.0) -> None:
        super().__init__(tower)
        self._sigma = sigma
        self._window: tuple[tuple[int, int], torch.Tensor] | None = None

    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """See ``TowerNamer.named``."""
        last, prefix, grid = self.tower.depth - 1, self.tower.prefix, self.grid(windows)
        block = self.tower.attended(last, self.entering_last(windows))
        return self.headed(self.tower.joined(last, by_keys(block, prefix, self._bias(grid, block.key.dtype))), grid)

    def _bias(self, grid: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """The latest grid's window is kept, since most windows have one size."""
        if self._window is None or self._window[0] != grid:
            self._window = grid, neighbourhood(*grid, self._sigma, self.tower.prefix).to(self.device, dtype)
        return self._window[1]
