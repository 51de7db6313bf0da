"""CorrCLIP (Zhang et al., ICCV 2025), with regions from a stream of masks.

Patches attend within their region, by the similarities of another network (``attention.correlation_weights``), and two branches are added:

    x = ln(main) + α·ln(spatial) + β·ln(semantic), then the projection

Main mixes the last block's values; spatial mixes the values that the last block has of the mean of earlier blocks' outputs. Semantic is a
copy of CLS for each region, which in every block attends to the image's CLS and to the patches of its region, and to nothing else, not
even itself; nothing attends to it. Patches in no region make up one more region there [code].
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.dense import Attended, DenseTower
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.predict.dense.attention import correlation_weights, mix
from ovskit.core.predict.dense.blocks import TowerNamer
from ovskit.core.predict.dense.merging import merged_regions
from ovskit.core.predict.dense.patch_regions import at_grid, patch_regions
from ovskit.core.predict.dense.proxies import Grid, common_grid, query_and_key_rows, values_at
from ovskit.core.predict.dense.proxy import in_heads, side_by_side
from ovskit.core.records import Int32

_EARLIER = {12: 5, 24: 12, 32: 28}  # published numbers of blocks of the spatial branch, by depth


class Corr(TowerNamer):
    """``proxy`` is loaded for its last layer, with any facet; the features of one without attention, the built-in, are used as they are.

    ``scale``, ``alpha``, ``beta`` and ``eps`` (of ``merging``) are published. ``alpha`` or ``beta`` 0 leaves a branch out. A tower without
    blocks has no branches: its last map is mixed. Without regions no patch is in any. Vectors come on the finer grid.
    """

    wants_regions = True

    def __init__(
        self, tower: DenseTower, proxy: Backbone, *, scale: float = 4.0, alpha: float = 1.0, beta: float = 0.5, eps: float = 0.2
    ) -> None:
        super().__init__(tower)
        self._proxy, self._scale, self._alpha, self._beta, self._eps = proxy, scale, alpha, beta, eps

    def named(self, windows: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """See ``TowerNamer.named``."""
        own = self.grid(windows)
        rows, grid = common_grid(query_and_key_rows(self._proxy, windows).to(self.device), own)
        labels = self._labels(rows, regions, grid)
        weights = correlation_weights(rows, torch.from_numpy(labels).flatten(1).to(self.device), self._scale)
        if not self.tower.depth:
            return self.headed(mix(weights, values_at(self.tower.embed(windows), own, grid)), grid)
        main, earlier, copies, of_patch = self._branches(windows, labels, own)
        found = self._mixed(weights, main, earlier, own, grid)
        if copies is not None:
            spread = torch.from_numpy(at_grid(of_patch, grid)).flatten(1).to(self.device).long()
            heads = self.tower.head(copies)
            found = found + self._beta * heads.gather(1, spread[:, :, None].expand(-1, -1, heads.shape[2]))
        return found.unflatten(1, grid)

    def _labels(self, rows: torch.Tensor, regions: torch.Tensor | None, grid: Grid) -> Int32:
        """The merged region of each patch: (b, h, w), -1 for none."""
        if regions is None:
            return np.full((len(rows), *grid), -1, np.int32)
        found = [patch_regions(each.numpy(), *grid) for each in regions.cpu()]
        return np.stack([merged_regions(row, each.ravel(), self._eps).reshape(grid) for row, each in zip(rows, found, strict=True)])

    def _mixed(self, weights: torch.Tensor, main: torch.Tensor, earlier: torch.Tensor | None, own: Grid, grid: Grid) -> torch.Tensor:
        """The main and the spatial branch of values (b, n, c), in the space of words: one mixing for both."""
        last, heads = self.tower.depth - 1, self.tower.heads
        values = main if earlier is None else torch.cat([main, earlier], dim=2)
        parts = mix(weights, values_at(values, own, grid)).split(main.shape[2], dim=2)
        found = [self.tower.head(self.tower.joined(last, in_heads(part, heads))) for part in parts]
        return found[0] if earlier is None else found[0] + self._alpha * found[1]

    def _branches(
        self, windows: torch.Tensor, labels: Int32, own: Grid
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, Int32]:
        """Values (b, n, c) of the main and of the spatial branch, the copies of CLS (b, r, c) after the last block, and whose is whose.

        The last is (b, h, w), the place of each patch's copy. Branches that are left out are None.
        """
        tower, last = self.tower, self.tower.depth - 1
        x = tower.embed(windows)
        n = x.shape[1]
        of_patch, count = _numbered(at_grid(labels, own))
        attends = self._attends(of_patch, count)
        if self._beta:
            x = torch.cat([x, x[:, :1].expand(-1, count, -1)], dim=1)
        summed, kept = None, earlier_blocks(tower.depth) if self._alpha else range(0)
        for index in range(last):
            x = self._block(index, x, n, attends) if self._beta else tower.block(index, x)
            if index in kept:
                summed = x[:, :n] if summed is None else summed + x[:, :n]
        block = tower.attended(last, x)
        main = side_by_side(block.value[:, :, tower.prefix : n])
        earlier = None
        if summed is not None:
            earlier = side_by_side(tower.attended(last, summed / len(kept)).value[:, :, tower.prefix :])
        copies = None
        if self._beta:
            copies = x[:, n:] + tower.joined(last, _of_copies(block, n, attends))
            copies = copies + tower.feed_forward(last, copies)
        return main, earlier, copies, of_patch

    def _attends(self, of_patch: Int32, count: int) -> torch.Tensor:
        """Which tokens each copy attends to: (b, 1, r, prefix + n) bool."""
        places = torch.from_numpy(of_patch).flatten(1).to(self.device)
        patches = places[:, None, :] == torch.arange(count, device=self.device)[:, None]
        return F.pad(patches, (self.tower.prefix, 0), value=True)[:, None]

    def _block(self, index: int, x: torch.Tensor, n: int, attends: torch.Tensor) -> torch.Tensor:
        """Block ``index`` on ``n`` tokens of the image and the copies behind them."""
        block = self.tower.attended(index, x)
        image = F.scaled_dot_product_attention(block.query[:, :, :n], block.key[:, :, :n], block.value[:, :, :n])
        x = x + self.tower.joined(index, torch.cat([image, _of_copies(block, n, attends)], dim=2))
        return x + self.tower.feed_forward(index, x)


def earlier_blocks(depth: int) -> range:
    """The blocks whose outputs the spatial branch takes the mean of: 5 to 9 of 12, 10 to 21 of 24, 2 to 29 of 32 [code].

    Of other depths, as many as of 12 in proportion [choice]; always up to the last but two, so none if there are fewer than three blocks.
    """
    number = _EARLIER.get(depth, max(1, round(5 * depth / 12)))
    return range(max(0, depth - 2 - number), max(0, depth - 2))


def _of_copies(block: Attended, n: int, attends: torch.Tensor) -> torch.Tensor:
    """Mixed values of the copies behind ``n`` tokens, which ask those tokens alone."""
    return F.scaled_dot_product_attention(block.query[:, :, n:], block.key[:, :, :n], block.value[:, :, :n], attn_mask=attends)


def _numbered(labels: Int32) -> tuple[Int32, int]:
    """The labels of each image (b, h, w) counted from 0, -1 among them, and how many the image with most of them has."""
    found = [np.unique(each, return_inverse=True) for each in labels]
    places = np.stack([inverse.reshape(labels.shape[1:]) for _, inverse in found]).astype(np.int32)
    return places, max(len(values) for values, _ in found)
