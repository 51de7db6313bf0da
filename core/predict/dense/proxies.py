"""What another network says of which patches belong together, on a grid that the tower's values are brought to."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.interface import Backbone, Projecting
from ovskit.core.runtime.errors import UsageError

Grid = tuple[int, int]


def patch_rows(proxy: Backbone, windows: torch.Tensor) -> torch.Tensor:
    """The proxy's patch features (b, h, w, c) of windows (b, 3, H, W) uint8, rows of length 1.

    Of a proxy with facets they are what it was loaded with, ProxyCLIP's being the ``token`` of the last layer; the built-in and the
    hand-made descriptor have one kind of features, which are used as they are.
    """
    return unit(proxy.extract(fitted(windows, proxy.spec.stride)).patch)


def query_and_key_rows(proxy: Backbone, windows: torch.Tensor) -> torch.Tensor:
    """CorrCLIP's features (b, h, w, c): q + k of the proxy's layer, rows of length 1; of a proxy without attention, ``patch_rows``.

    Raises UsageError for a proxy whose queries are wider than its keys.
    """
    if not isinstance(proxy, Projecting):
        return patch_rows(proxy, windows)
    query, key = proxy.projections(fitted(windows, proxy.spec.stride), ("query", "key"))
    if query.shape != key.shape:
        raise UsageError(f"--proxy {proxy.spec.name}: its queries share keys, so the two cannot be added: give another, such as dino-vitb8")
    return unit(query + key)


def fitted(windows: torch.Tensor, stride: int) -> torch.Tensor:
    """Windows (b, 3, H, W) uint8 at the multiple of ``stride`` pixels that is nearest to each side, bilinear and antialiased [choice]."""
    height, width = (max(1, int(side / stride + 0.5)) * stride for side in windows.shape[2:])
    if (height, width) == tuple(windows.shape[2:]):
        return windows
    resized = F.interpolate(windows.float(), (height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows of length 1, computed in float32; rows of zeros stay so."""
    return F.normalize(rows.float(), dim=-1).to(rows.dtype)


def common_grid(rows: torch.Tensor, own: Grid) -> tuple[torch.Tensor, Grid]:
    """The finer of two grids, that of the proxy's unit rows (b, h, w, c) and the tower's ``own``, and the rows on it: (b, n, c).

    Values are brought to it by ``values_at``. A coarser proxy's rows are resized bilinearly, then of length 1 again [choice].
    """
    grid = (rows.shape[1], rows.shape[2])
    if grid[0] * grid[1] >= own[0] * own[1]:
        return rows.flatten(1, 2), grid
    return unit(values_at(rows.flatten(1, 2), grid, own)), own


def values_at(values: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """Values (b, n, c) of the patches of one grid at those of another, bilinear, both grids covering the same window: (b, m, c)."""
    if grid == target:
        return values
    maps = values.unflatten(1, grid).permute(0, 3, 1, 2)
    return F.interpolate(maps, target, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
