"""Queries that begin at places of the image, each as the region that it lies in, instead of as vectors learned by heart.

Mask2Former's queries are parameters, and what any of them stands for has to be found out photograph by photograph. One that begins
at a place knows a region to begin with: what the backbone says belongs together with that place. ``kinds`` queries begin at each,
from narrow to wide, since a place lies in a part, in its whole, and in what the whole belongs to. There may be any number of places.

A query's mask logits at x are Mask2Former's product of two vectors, plus a *prior*

    α (cos(g(p), g(x)) − β) − γ |x − p − δ|²

where g are the backbone's vectors of grouping, p is the query's place, and α, β, γ and δ are what the query makes of them, layer
by layer; to begin with they are the same for all queries, but for β, which is its kind's. So before anything is learned masks are
already regions, every layer attends to one, and the matcher has something to choose from.

All of it is a choice; SOHES has Mask2Former's learned queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHARPNESS = 10.0  # α to begin with: a cosine 0.3 above β is all but sure
_NARROW, _WIDE = 0.8, 0.2  # β to begin with, of the first kind and the last
_NEARNESS = 0.1  # γ to begin with: the other end of the image costs less than half a logit


class Seeds(NamedTuple):
    """Where the queries of a batch begin: ``content`` and ``positions`` (q, b, hidden), ``places`` (q, 2), x and y in −1 … 1,
    ``grouping`` (b, q, g) unit vectors, and ``kinds`` (q,), int64."""

    content: Tensor
    positions: Tensor
    places: Tensor
    grouping: Tensor
    kinds: Tensor


class PlaceQueries(nn.Module):
    """The first queries of an image and the priors of their masks.

    ``widths`` are the channels of the maps that are looked at, ``hidden`` the queries' own, ``kinds`` how many begin at a place.
    """

    def __init__(self, widths: Sequence[int], hidden: int, kinds: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Linear(sum(widths), hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden))
        self.kinds = nn.Embedding(kinds, hidden)
        self.least = nn.Parameter(torch.linspace(_NARROW, _WIDE, kinds))  # β of each kind
        self.change = nn.Linear(hidden, 5)  # what a query makes of α, β, γ and δ
        self.reset()

    def reset(self) -> None:
        """Priors that are the same for all queries of a kind."""
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, maps: Sequence[Tensor], grouping: Tensor, positions: Tensor, count: int) -> Seeds:
        """About ``count`` queries, at the middles of a grid of places.

        ``maps`` (b, c, h, w) may differ in size; ``grouping`` (b, g, h, w) are unit vectors, ``positions`` (b, hidden, h, w) the
        position embeddings of one of the maps, the same for all images.
        """
        kinds = self.kinds.num_embeddings
        rows, columns = grid_of(max(1, count // kinds), *grouping.shape[-2:])
        places = middles(rows, columns, grouping.device)
        seen = self.look(torch.cat([_at(each, places) for each in maps], dim=2))  # (b, places, hidden)
        content = (seen[:, :, None] + self.kinds.weight).flatten(1, 2).transpose(0, 1)
        where = _at(positions[:1], places).repeat_interleave(kinds, dim=1).expand(len(grouping), -1, -1).transpose(0, 1)
        near = F.normalize(_at(grouping, places), dim=2).repeat_interleave(kinds, dim=1)
        kind = torch.arange(kinds, device=grouping.device).repeat(rows * columns)
        return Seeds(content, where, places.flatten(0, 2).repeat_interleave(kinds, dim=0), near, kind)

    def prior(self, seeds: Seeds, states: Tensor, ground: Tensor) -> Tensor:
        """The prior's logits (b, q, h, w), float32, of queries whose states are (b, q, hidden), on the ``ground`` of an image."""
        # Sums of large terms of both signs: bfloat16 would leave nothing of a small mask.
        with torch.autocast(states.device.type, enabled=False):
            change = self.change(states.float())
            sharp = _SHARPNESS * torch.exp(change[..., 0])
            least = self.least[seeds.kinds] + change[..., 1]
            near = _NEARNESS * torch.exp(change[..., 2])
            middle = seeds.places + change[..., 3:5]
            constant = -sharp * least - near * middle.square().sum(2)
            own = torch.stack([2 * near * middle[..., 0], 2 * near * middle[..., 1], -near, constant], dim=2)
            return torch.einsum("bqc,bchw->bqhw", torch.cat([sharp[..., None] * seeds.grouping, own], dim=2), ground)


def ground_of(grouping: Tensor) -> Tensor:
    """What priors stand on: unit vectors (b, g, h, w) with x, y, x² + y² and 1, (b, g + 4, h, w) float32; x and y in −1 … 1."""
    batch, _, h, w = grouping.shape
    x, y = middles(h, w, grouping.device)[0].permute(2, 0, 1)
    own = torch.stack([x, y, x.square() + y.square(), torch.ones_like(x)]).expand(batch, -1, -1, -1)
    return torch.cat([grouping.float(), own], dim=1)


def _at(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (b, c, h, w) at places (1, rows, columns, 2), bilinearly: (b, places, c)."""
    found = F.grid_sample(maps.float(), places.expand(len(maps), -1, -1, -1), align_corners=False, padding_mode="border")
    return found.flatten(2).transpose(1, 2)


def grid_of(places: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of about so many places, as far apart downwards as sideways; at least one of each."""
    rows = max(1, round(math.sqrt(places * height / width)))
    return rows, max(1, round(places / rows))


def middles(rows: int, columns: int, device: torch.device) -> Tensor:
    """The middles (1, rows, columns, 2) of a grid's cells, x and y in −1 … 1."""
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (rows, columns))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
