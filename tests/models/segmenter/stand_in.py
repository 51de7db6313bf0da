"""A pyramid that is no more than four convolutions, and little pictures with known masks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ovskit.core.models.segmenter.config import SIZES, SegmenterConfig
from ovskit.core.models.segmenter.losses import Target
from ovskit.core.models.segmenter.network import Segmenter

TINY = replace(SIZES["tiny"], hidden=32, queries=6, heads=2, pixel_feedforward=32, decoder_feedforward=32, mask_features=16, points=64)

torch.set_num_threads(1)


class StandIn(nn.Module):
    name = "stand-in"
    channels = (8, 12, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(widths[k], widths[k + 1], 4 if k == 0 else 2, stride=4 if k == 0 else 2) for k in range(len(self.channels))
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.float() / 128 - 1
        maps = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            maps.append(x)
        return tuple(maps)


def made(config: SegmenterConfig = TINY, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(config, StandIn())


def scene(*boxes: tuple[int, int, int, int], size: int = 64) -> tuple[Tensor, Target]:
    """A picture (3, size, size) of rectangles (y0, x0, y1, x1), later ones on top, and their masks: who lies in whom is its part."""
    image = torch.full((3, size, size), 40, dtype=torch.uint8)
    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for k, (top, left, bottom, right) in enumerate(boxes):
        masks[k, top:bottom, left:right] = True
        image[:, top:bottom, left:right] = torch.tensor([60 * k + 90, 250 - 80 * k, 20 + 70 * k], dtype=torch.uint8)[:, None, None]
    inside = torch.tensor([[bool((b & ~a).sum() == 0) and i != j for j, b in enumerate(masks)] for i, a in enumerate(masks)])
    return image, Target(masks, inside.reshape(len(boxes), len(boxes)))
