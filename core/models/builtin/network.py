"""The built-in network: a small convolutional pyramid that says, for every 4 × 4 pixels, what belongs together and where it ends.

From images of any size it gives, at stride 4,

- an *embedding*, whose cosine says how much two places belong together,
- the *boundaries*: how sure it is that a place and its neighbour to the right, or below, lie in different segments, for
  each granularity of the segments it was trained on,

and one *global* vector an image. The layers are residual blocks of 3 × 3 convolutions at strides 4 to 32, joined from coarse
to fine as in a feature pyramid (Lin et al., CVPR 2017). ``attention`` adds blocks of self-attention at the coarsest stride,
with a depthwise convolution in place of position embeddings (after CPVT, Chu et al., ICLR 2023), so that any size fits.

All of it is a choice; docs/notes/builtin.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 4
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """``widths`` and ``blocks`` of the residual stages at strides 4, 8, 16, …; ``attention`` counts the blocks of
    self-attention after the last one, of 32 channels a head; ``pyramid`` is the width of the path back to stride 4,
    ``embedding`` that of its result, ``levels`` the number of granularities of boundaries, ``projection`` the width of the
    vector that images are compared by in training."""

    widths: tuple[int, ...] = (32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 2, 2, 2)
    attention: int = 0
    pyramid: int = 64
    embedding: int = 64
    levels: int = 4
    projection: int = 128

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for a weights file's header."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkConfig:
        """The inverse of ``to_json``. Raises KeyError, TypeError or ValueError where a value is missing or of the wrong kind."""
        numbers = {name: int(data[name]) for name in ("attention", "pyramid", "embedding", "levels", "projection")}
        return cls(tuple(int(v) for v in data["widths"]), tuple(int(v) for v in data["blocks"]), **numbers)


@dataclass(frozen=True, slots=True)
class Grouping:
    """What the network says of a batch.

    ``embedding`` (b, embedding, h, w), not normalised; ``right`` and ``below`` (b, levels, h, w) are logits of a boundary
    between a place and its neighbour there (the last column and row have none: ignore them); ``pooled`` (b, widths[-1]) is
    the mean of the coarsest stage over the image.
    """

    embedding: torch.Tensor
    right: torch.Tensor
    below: torch.Tensor
    pooled: torch.Tensor


class GroupingNetwork(nn.Module):
    """See the module. Input: (b, 3, H, W), normalised by ``MEAN`` and ``STD``; h = ⌈H / 4⌉, w = ⌈W / 4⌉."""

    def __init__(self, config: NetworkConfig) -> None:
        if len(config.widths) != len(config.blocks) or not config.widths:
            raise ValueError(f"{len(config.widths)} widths need as many blocks, not {len(config.blocks)}")
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Sequential(_convolution(3, widths[0], 5, 2), nn.ReLU(True), _convolution(widths[0], widths[0], 3, 2), nn.ReLU(True))
        self.stages = nn.ModuleList()
        for k, (width, count) in enumerate(zip(widths, config.blocks, strict=True)):
            down = [] if k == 0 else [_convolution(widths[k - 1], width, 3, 2), nn.ReLU(True)]
            last = [_Attention(width) for _ in range(config.attention)] if k == len(widths) - 1 else []
            self.stages.append(nn.Sequential(*down, *(_Residual(width) for _ in range(count)), *last))
        self.lateral = nn.ModuleList(nn.Conv2d(width, config.pyramid, 1) for width in widths)
        self.joined = nn.ModuleList(_Residual(config.pyramid) for _ in widths[:-1])
        self.embed = nn.Conv2d(config.pyramid, config.embedding, 1)
        self.boundary = nn.Conv2d(config.pyramid, 2 * config.levels, 3, 1, 1)
        hidden = 2 * config.projection
        self.project = nn.Sequential(
            nn.Linear(widths[-1], hidden), nn.BatchNorm1d(hidden), nn.ReLU(True), nn.Linear(hidden, config.projection)
        )

    def forward(self, images: torch.Tensor) -> Grouping:
        """See ``Grouping``."""
        x = self.stem(images)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        joined = join(found, self.lateral, self.joined)
        right, below = self.boundary(joined).chunk(2, dim=1)
        return Grouping(self.embed(joined), right, below, found[-1].mean(dim=(2, 3)))

    def projected(self, pooled: torch.Tensor) -> torch.Tensor:
        """The vectors (b, projection) that images are compared by in training, from ``Grouping.pooled``."""
        out: torch.Tensor = self.project(pooled)
        return out


def join(found: Sequence[torch.Tensor], lateral: nn.ModuleList, joined: nn.ModuleList) -> torch.Tensor:
    """The path back: from the stages' maps, finest first, to one at stride 4 (b, pyramid, h, w)."""
    out: torch.Tensor = lateral[-1](found[-1])
    for k in range(len(found) - 2, -1, -1):
        out = F.interpolate(out, size=found[k].shape[2:], mode="bilinear", align_corners=False)
        out = joined[k](out + lateral[k](found[k]))
    return out


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(b, 3, H, W) of 0 to 255, any type, as the network's float32 input."""
    # Filled there one by one: a copy of them would wait for the device.
    mean, std = (torch.stack([torch.full((), one, device=images.device) for one in each]).view(1, 3, 1, 1) for each in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def fold_batch_norms(network: GroupingNetwork) -> GroupingNetwork:
    """The network in evaluation mode with every normalisation of a convolution made part of it; changed in place, returned."""
    network.eval()
    for module in network.modules():
        if isinstance(module, _ConvolutionAndNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.convolution = nn.utils.fusion.fuse_conv_bn_eval(module.convolution, module.norm)
            module.norm = nn.Identity()
    return network


class _ConvolutionAndNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.convolution: nn.Conv2d = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.convolution(x))
        return out


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> _ConvolutionAndNorm:
    return _ConvolutionAndNorm(inputs, outputs, size, stride)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class _Attention(nn.Module):
    """A transformer block over all places; its two branches start at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        self.position = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        for parameter in (*self.out.parameters(), *self.mlp[2].parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, h, w = x.shape
        tokens = (x + self.position(x)).flatten(2).mT
        q, k, v = self.qkv(self.norm_attention(tokens)).view(batch, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, h * w, width))
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        return tokens.mT.reshape(batch, width, h, w)
