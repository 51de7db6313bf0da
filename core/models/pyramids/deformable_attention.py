"""Attention over a few places of several maps, which the query chooses itself.

Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", ICLR 2021, Equations 2 and 3. A query with
a reference point p attends, with each of its heads and in each of L maps, to K places p + Δp; the offsets Δp and the weights of
the places are linear functions of the query alone. The cost grows with the number of queries, not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

Shape = tuple[int, int]


def centres(shapes: Sequence[Shape], device: torch.device) -> torch.Tensor:
    """The centres (Σ h·w, 2) of the places of maps of these sizes, one after the other, row by row: x and y, each from 0 to 1."""
    found = []
    for height, width in shapes:
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        found.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).view(-1, 2))
    return torch.cat(found)


def sample_and_sum(values: torch.Tensor, shapes: Sequence[Shape], locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The inner sums of Equation 3: Σ over maps and places of weight × value at the place.

    ``values`` (b, Σ h·w, heads, c) are those of maps of the sizes ``shapes``, one after the other, row by row; ``locations`` (b, q,
    heads, maps, places, 2) are x and y from 0 to 1 from border to border of a map; ``weights`` (b, q, heads, maps, places). Values
    are interpolated bilinearly between the centres of places and are zero outside. Returns (b, q, heads · c), computed in float32,
    or float64 if that is what ``values`` are: with bfloat16's 8 bits, a place in a large map would be off by half a place.
    """
    batch, _, heads, channels = values.shape
    queries = locations.shape[1]
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(values.device.type, enabled=False):
        maps = values.to(dtype).permute(0, 2, 3, 1).flatten(0, 1)
        places = (2 * locations.to(dtype) - 1).transpose(1, 2).flatten(0, 1)
        shares = weights.to(dtype).transpose(1, 2).flatten(0, 1)
        out = maps.new_zeros(batch * heads, channels, queries)
        # Map by map, so that only one map's samples are there at a time.
        for level, (part, shape) in enumerate(zip(maps.split([h * w for h, w in shapes], dim=2), shapes, strict=True)):
            found = F.grid_sample(part.unflatten(2, shape), places[:, :, level], padding_mode="zeros", align_corners=False)
            out = out + (found * shares[:, None, :, level]).sum(dim=3)
    return out.view(batch, heads * channels, queries).mT


class DeformableAttention(nn.Module):
    """Equation 3: from queries (b, q, width) at reference points, and the values of ``maps`` maps, to (b, q, width).

    ``inner`` is the width of all heads together. Raises ValueError if that is not a multiple of ``heads``.
    """

    def __init__(self, width: int, *, heads: int, maps: int, places: int = 4, inner: int | None = None) -> None:
        super().__init__()
        inner = width if inner is None else inner
        if inner % heads:
            raise ValueError(f"{heads} heads do not share {inner} channels evenly")
        self._split = (heads, maps, places)
        self.offsets = nn.Linear(width, 2 * heads * maps * places)
        self.weights = nn.Linear(width, heads * maps * places)
        self.value = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)
        self._initialise()

    def _initialise(self) -> None:
        """As in the paper (§A.4): at first all queries look alike, each head into another direction, k steps far for place k."""
        heads, maps, places = self._split
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        steps = directions[:, None, None, :] * torch.arange(1, places + 1)[None, None, :, None]
        with torch.no_grad():
            for linear in (self.offsets, self.weights):
                linear.weight.zero_()
                linear.bias.zero_()
            self.offsets.bias.copy_(steps.expand(heads, maps, places, 2).flatten())
            for linear in (self.value, self.out):
                nn.init.xavier_uniform_(linear.weight)
                linear.bias.zero_()

    def forward(self, queries: torch.Tensor, references: torch.Tensor, values: torch.Tensor, shapes: Sequence[Shape]) -> torch.Tensor:
        """See the class. ``references`` (q, 2) are x and y from 0 to 1; ``values`` (b, Σ h·w, width) are maps of the sizes ``shapes``."""
        heads, maps, places = self._split
        # Offsets are in places of the map they are for, so that a map's size does not change what was learned.
        # Filled there one by one: a copy of them would wait for the device, here ten times a pass.
        sides = [torch.full((), side, device=queries.device, dtype=references.dtype) for h, w in shapes for side in (w, h)]
        sizes = torch.stack(sides).view(-1, 2)
        offsets = self.offsets(queries).unflatten(2, (heads, maps, places, 2)).to(references.dtype)
        locations = references[None, :, None, None, None, :] + offsets / sizes[None, None, None, :, None, :]
        weights = self.weights(queries).unflatten(2, (heads, maps * places)).softmax(dim=-1).unflatten(3, (maps, places))
        found = sample_and_sum(self.value(values).unflatten(2, (heads, -1)), shapes, locations, weights)
        out: torch.Tensor = self.out(found)
        return out
