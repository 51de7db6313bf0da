"""Patch features of a frozen vision transformer: run as far as the facet needs, and no further.

The families differ in how a block is built; here they are all a ``Trunk``, a network opened at its seams. The facets
key, query and value are the output of that linear projection of a block, all heads side by side, **before** any norm
of queries and keys and before rotary position encoding [choice: DINO-based methods (HASSOD, UnSAM) hook the
projection itself]. ``token`` is the output of the block, with the network's final norm if it is the last block [choice].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.interface import BackboneSpec, Facet, Features, Projection, Sampling, check_images
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError

Linear = tuple[torch.Tensor, torch.Tensor | None]
_THIRD: dict[str, int] = {"query": 0, "key": 1, "value": 2}
_OFFSET = 0.1  # patches, of DINO's and DINOv2's code


@dataclass(frozen=True, slots=True)
class Tokens:
    """What enters the first block: ``x`` (b, prefix + h·w, c), and what the family's blocks need to know of positions."""

    x: torch.Tensor
    positions: torch.Tensor | None = None


class Trunk(Protocol):
    """A vision transformer opened at its seams. ``prefix`` tokens (CLS, registers) come before those of the patches."""

    network: torch.nn.Module
    depth: int
    prefix: int
    has_cls: bool

    def embed(self, images: torch.Tensor) -> Tokens:
        """Tokens of normalised images (b, 3, H, W), positions added."""
        ...

    def block(self, index: int, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """The whole block ``index``: (b, n, c) to (b, n, c)."""
        ...

    def attention_input(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """What the attention of block ``index`` projects, given the tokens that enter the block: as a rule, their norm."""
        ...

    def projection(self, index: int, facet: Projection) -> Linear:
        """Weight (d, c) and bias (d,) of one projection of block ``index``, heads side by side."""
        ...

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """The final norm."""
        ...

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        """The image's embedding (b, d) from the output of the last block: the CLS token after the final norm, or CLIP's."""
        ...


def rows_of(weight: torch.Tensor, bias: torch.Tensor | None, facet: Projection) -> Linear:
    """The rows of one facet in a joint query-key-value projection (3·d, c), with their bias; views, not copies."""
    width = weight.shape[0] // 3
    rows = slice(_THIRD[facet] * width, (_THIRD[facet] + 1) * width)
    return weight[rows], None if bias is None else bias[rows]


class Positions:
    """A table of absolute position embeddings (1, prefix + h·w, c), resampled to other grids by bicubic interpolation.

    The first ``prefix`` rows belong to no patch and stay as they are. ``antialias`` is not a detail that matters only
    for shrinking: torch's antialiased bicubic kernel is another one (a = −0.5 instead of −0.75), so the two differ
    when enlarging as well. Computed in float32; the latest grid is kept, since most runs have only one.

    ``sampling`` says where the new grid's points lie in the old one. By ``size``, point i of n is at (i + ½)·N/n − ½ of N, so that
    both grids cover the same image. By ``scale``, it is at (i + ½)·N/(n + 0.1) − ½, as in the code of DINO and DINOv2,
    which gives the scale (n + 0.1)/N to the interpolation as a guard against rounding: the grid is pressed together by
    a tenth of a patch, towards its first row and column.
    """

    def __init__(self, table: torch.Tensor, grid: tuple[int, int], prefix: int, *, antialias: bool, sampling: Sampling = "size") -> None:
        self._table, self._grid, self._prefix, self._antialias, self._sampling = table, grid, prefix, antialias, sampling
        self._latest: tuple[tuple[int, int], torch.Tensor] = (grid, table)

    def at(self, grid: tuple[int, int]) -> torch.Tensor:
        """The table (1, prefix + grid[0]·grid[1], c) for a grid of that many rows and columns of patches."""
        known, table = self._latest
        if known != grid:
            table = self._resample(grid)
            self._latest = (grid, table)
        return table

    def _resample(self, grid: tuple[int, int]) -> torch.Tensor:
        if grid == self._grid:
            return self._table
        width = self._table.shape[-1]
        image = self._table[:, self._prefix :].float().reshape(1, *self._grid, width).permute(0, 3, 1, 2)
        scale = tuple((new + _OFFSET) / old for new, old in zip(grid, self._grid, strict=True)) if self._sampling == "scale" else None
        size = grid if scale is None else None
        image = F.interpolate(image, size, scale, mode="bicubic", antialias=self._antialias, align_corners=False)
        patches = image.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], width).to(self._table.dtype)
        return torch.cat([self._table[:, : self._prefix], patches], dim=1)


def resolve_layer(layer: int, depth: int, name: str) -> int:
    """A block's index from 0. Raises UsageError if there is no such block."""
    if not -depth <= layer < depth:
        raise UsageError(f"--layer {layer}: {name} has {depth} blocks, {-depth} to {depth - 1}")
    return layer % depth


def feature_width(trunk: Trunk, facet: Facet, layer: int) -> int:
    """The width of a patch feature."""
    weight, _ = trunk.projection(layer, "key" if facet == "token" else facet)
    return weight.shape[1 if facet == "token" else 0]


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that is computed in: the one asked for, but float32 for float16 on a CPU, which is slow and imprecise there."""
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype


def normalised(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Images (b, 3, H, W) uint8, normalised in float32 on the device of ``mean`` and ``std`` (1, 3, 1, 1), and given as ``dtype``."""
    # Moved as bytes: a copy that also converts would convert on the CPU, and carry four times as much.
    return images.to(mean.device).to(torch.float32).div_(255).sub_(mean).div_(std).to(dtype)


def check_size(height: int, width: int, spec: BackboneSpec) -> None:
    """Raises UsageError if a side of an image in pixels is not a multiple of the model's patch."""
    stride = spec.stride
    if height < stride or width < stride or height % stride or width % stride:
        raise UsageError(f"size {height}×{width}: {spec.name} needs multiples of its {stride}-pixel patch")


class VitBackbone:
    """A ``Backbone`` around a ``Trunk``: preprocessing on the device, facet, and no block more than asked for.

    Features come in the compute type, on ``device``, not normalised; ``patch`` is (b, h, w, d) with h·stride = H. On a
    CPU a batch is run image by image, so the features of an image are the same bytes whatever else is in the batch; on
    other devices the libraries choose their kernels by batch size, and equality is up to rounding.
    """

    def __init__(self, spec: BackboneSpec, trunk: Trunk, device: torch.device, dtype: torch.dtype) -> None:
        self.spec = spec
        self.device = device
        self._trunk = trunk
        self._layer = resolve_layer(spec.layer, trunk.depth, spec.name)
        self._dtype = dtype
        trunk.network.eval().requires_grad_(False)
        self._mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``; the specification says how. Raises UsageError if a side is not a multiple of the patch."""
        check_size(height, width, self.spec)
        return resize_rgb(image, height, width, self.spec.interpolation)

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        """See ``Backbone.extract``. ``cls`` runs the whole network; its width may differ from that of the patches."""
        if cls and not self.spec.has_cls:
            raise UsageError(f"{self.spec.name} has no CLS token")
        check_images(batch, self.spec.name)
        check_size(batch.shape[2], batch.shape[3], self.spec)
        pieces = batch.split(1) if self.device.type == "cpu" else (batch,)
        with torch.inference_mode():
            found = [self._forward(piece, cls, patch) for piece in pieces]
            patches = torch.cat([each.patch for each in found])
            return Features(patches, torch.cat([each.cls for each in found if each.cls is not None]) if cls else None)

    def projections(self, batch: torch.Tensor, facets: Sequence[Projection]) -> tuple[torch.Tensor, ...]:
        """See ``Projecting.projections``."""
        check_images(batch, self.spec.name)
        check_size(batch.shape[2], batch.shape[3], self.spec)
        pieces = batch.split(1) if self.device.type == "cpu" else (batch,)
        with torch.inference_mode():
            found = [self._project(piece, facets) for piece in pieces]
            return tuple(torch.cat(each) for each in zip(*found, strict=True))

    def _project(self, images: torch.Tensor, facets: Sequence[Projection]) -> list[torch.Tensor]:
        tokens = self._trunk.embed(normalised(images, self._mean, self._std, self._dtype))
        x = tokens.x
        for index in range(self._layer):
            x = self._trunk.block(index, x, tokens.positions)
        entering = self._trunk.attention_input(self._layer, x[:, self._trunk.prefix :])
        return [self._grid(F.linear(entering, *self._trunk.projection(self._layer, facet)), images) for facet in facets]

    def _forward(self, images: torch.Tensor, cls: bool, patch: bool) -> Features:
        if not (patch or cls):
            return Features(torch.empty(len(images), 0, 0, self.spec.dim, dtype=self._dtype, device=self.device), None)
        tokens = self._trunk.embed(normalised(images, self._mean, self._std, self._dtype))
        x, positions = tokens.x, tokens.positions
        facet, last = self.spec.facet, self._trunk.depth - 1
        wanted = torch.empty(len(images), 0, 0, self.spec.dim, dtype=x.dtype, device=self.device)
        for index in range(self._trunk.depth):
            here = patch and index == self._layer
            if here and facet != "token":
                entering = self._trunk.attention_input(index, x[:, self._trunk.prefix :])
                wanted = self._grid(F.linear(entering, *self._trunk.projection(index, facet)), images)
                if not cls:
                    break
            x = self._trunk.block(index, x, positions)
            if here and facet == "token":
                wanted = self._grid((self._trunk.norm(x) if index == last else x)[:, self._trunk.prefix :], images)
                if not cls:
                    break
        return Features(wanted, self._trunk.embedding(x) if cls else None)

    def _grid(self, patches: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        stride = self.spec.stride
        return patches.reshape(len(images), images.shape[2] // stride, images.shape[3] // stride, -1)
