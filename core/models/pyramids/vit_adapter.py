"""A plain vision transformer made to give feature maps at strides 4, 8, 16 and 32, all of it trainable.

Chen et al., "Vision Transformer Adapter for Dense Predictions", ICLR 2023, §3. Beside the transformer runs a branch of maps at
strides 8, 16 and 32, which a small convolutional network (the spatial prior) begins. The transformer's blocks fall into four
parts; before each, the tokens take up what the maps have (an injector), after each the maps take up what the tokens have (an
extractor). Injectors are scaled by γ, zero at the start: the transformer begins as it was trained.

Choices, where the paper leaves one or has another:

- GroupNorm in place of (synchronised) BatchNorm: a processor often has one or two images only.
- CLS and register tokens stay and take part in the transformer's blocks, as they did when it was trained; injectors and extractors see
  patches only. (The authors drop them for most networks.)
- The final norm of the transformer is not used, as in the authors' code; it stays, untrained, so that the trunk is timm's.
- A patch that divides 32 keeps its own grid. For any other (14), the transformer sees the images resized, so that its grid has
  stride 16.
- Deformable attention has a head for every 64 channels, and values half as wide above 384 channels, as in the authors' code for
  ViT-S, -B and -L.
- Position embeddings are resampled by size whatever the transformer, as in the authors' code, and not by DINO's scale; antialiased
  where the transformer's own authors do that.
- With a frozen trunk injectors are trained still, so activations are kept in the trunk as well.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import nn

from ovskit.core.models.backbones.timm_vit import TimmTrunk, fill, open_vit
from ovskit.core.models.pyramids.deformable_attention import DeformableAttention, Shape, centres
from ovskit.core.models.pyramids.pyramid import Maps, Pyramid, run_block
from ovskit.core.models.weights.source import HubFile, WeightsSource
from ovskit.core.models.weights.state_dict import NoInit
from ovskit.core.runtime.errors import UsageError

_INTERACTIONS = 4
_COARSE = (8, 16, 32)  # strides of the maps that interact
_STRIDE = 16  # of the tokens, where the patch does not decide it
_STEM = 64
_PARTS = ("norm", "fc_norm", "head", "attn_pool")  # of the transformer, that come after its blocks


class ViTAdapter(Pyramid):
    """See the module. ``vit`` is an opened timm network (``changing``); every map is as wide as its tokens."""

    def __init__(self, name: str, vit: TimmTrunk, *, freeze: bool, checkpointing: bool = False) -> None:
        network = vit.network
        width = int(network.embed_dim)
        data = resolve_model_data_config(network)
        super().__init__(name, network, (width,) * 4, data["mean"], data["std"], freeze=freeze)
        for part in _PARTS:
            if isinstance(getattr(network, part, None), nn.Module):
                getattr(network, part).requires_grad_(False)
        self._vit, self._checkpointing = vit, checkpointing
        self._bounds = [vit.depth * k // _INTERACTIONS for k in range(_INTERACTIONS + 1)]
        self.prior = _SpatialPrior(width)
        self.injectors = nn.ModuleList(_Injector(width) for _ in range(_INTERACTIONS))
        # The last interaction ends with three extractors, as in the authors' code.
        self.extractors = nn.ModuleList(
            nn.ModuleList(_Extractor(width) for _ in range(3 if k == _INTERACTIONS - 1 else 1)) for k in range(_INTERACTIONS)
        )
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        self.norms = nn.ModuleList(_group_norm(width) for _ in self.channels)

    def _maps(self, images: torch.Tensor) -> Maps:
        shapes = [(images.shape[2] // stride, images.shape[3] // stride) for stride in _COARSE]
        finest, spatial = self.prior(images)
        tokens = self._vit.embed(self._resized(images))
        x, grid = tokens.x, self._grid(images)
        at_tokens, at_maps = centres([grid], images.device), centres(shapes, images.device)
        seen = []
        for k, (injector, extractors) in enumerate(zip(self.injectors, self.extractors, strict=True)):
            prefix, patches = x.split([self._vit.prefix, x.shape[1] - self._vit.prefix], dim=1)
            x = torch.cat([prefix, self._run(injector, patches, at_tokens, spatial, shapes)], dim=1)
            for index in range(self._bounds[k], self._bounds[k + 1]):
                x = self._run(self._vit.block, index, x, tokens.positions)
            patches = x[:, self._vit.prefix :]
            for extractor in extractors:  # type: ignore[attr-defined]  # a ModuleList in a ModuleList
                spatial = self._run(extractor, spatial, at_maps, patches, grid, shapes)
            seen.append(_map(patches, grid))
        eighth, *coarser = (_map(part, shape) for part, shape in zip(spatial.split([h * w for h, w in shapes], dim=1), shapes, strict=True))
        own = (finest + self.enlarge(eighth), eighth, *coarser)
        # Each map with the tokens as they were after one of the interactions, the finest after the first, as in the authors' code.
        joined = [each + F.interpolate(s, each.shape[2:], mode="bilinear", align_corners=False) for each, s in zip(own, seen, strict=True)]
        first, second, third, fourth = (norm(each) for norm, each in zip(self.norms, joined, strict=True))
        return first, second, third, fourth

    def _run(self, block: object, *inputs: object) -> torch.Tensor:
        return run_block(block, *inputs, checkpointing=self._checkpointing)  # type: ignore[arg-type]

    def _grid(self, images: torch.Tensor) -> Shape:
        """Rows and columns of tokens."""
        stride = self._vit.stride if 32 % self._vit.stride == 0 else _STRIDE
        return images.shape[2] // stride, images.shape[3] // stride

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        """The images as the transformer takes them."""
        size = [side * self._vit.stride for side in self._grid(images)]
        if size == list(images.shape[2:]):
            return images
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    def _depth_groups(self) -> Iterator[list[nn.Parameter]]:
        blocks = [list(block.parameters()) for block in self._vit.network.blocks]
        in_blocks = {id(parameter) for block in blocks for parameter in block}
        yield [parameter for parameter in self.trunk.parameters() if id(parameter) not in in_blocks]
        yield from blocks
        in_trunk = {id(parameter) for parameter in self.trunk.parameters()}
        yield [parameter for parameter in self.parameters() if id(parameter) not in in_trunk]


def build_vit_adapter(
    name: str, full_name: str, source: WeightsSource | None, hub: HubFile | None, *, freeze: bool, checkpointing: bool
) -> ViTAdapter | None:
    """An adapter around a plain ViT of timm, or None if ``full_name`` is another architecture; random weights where there is no ``source``.

    Raises what ``WeightsSource.path`` raises, and InputError for weights that are not this model's.
    """
    try:
        with NoInit() if source is not None else contextlib.nullcontext():
            vit = open_vit(name, full_name, positions="size", changing=True)
    except UsageError:
        return None
    if source is not None:
        fill(vit.network, source.path(hub), name)
    return ViTAdapter(name, vit, freeze=freeze, checkpointing=checkpointing)


class _SpatialPrior(nn.Module):
    """§3.2: from normalised images to a map at stride 4 (b, width, H/4, W/4), and those at 8, 16, 32, flattened (b, Σ h·w, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # ResNet's stem with three small kernels in place of a large one, then halvings.
        stem = (_convolution(3, _STEM, 2), _convolution(_STEM, _STEM, 1), _convolution(_STEM, _STEM, 1), nn.MaxPool2d(3, 2, 1))
        self.stem = nn.Sequential(*stem)
        widths = (_STEM, 2 * _STEM, 4 * _STEM, 4 * _STEM)
        self.down = nn.ModuleList(_convolution(before, after, 2) for before, after in itertools.pairwise(widths))
        self.project = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)
        # Tells the maps apart once they are flattened; drawn as in Deformable DETR.
        self.level = nn.Parameter(torch.randn(len(_COARSE), width))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(images)
        finest, coarse = self.project[0](x), []
        for down, project, level in zip(self.down, self.project[1:], self.level, strict=True):
            x = down(x)
            coarse.append(project(x).flatten(2).mT + level)
        return finest, torch.cat(coarse, dim=1)


class _Injector(nn.Module):
    """Equation 1: the tokens (b, n, width) attend to the maps.

    γ, a factor a channel, is zero at the start.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_tokens, self.norm_maps = _layer_norm(width), _layer_norm(width)
        self.attention = _attention(width, len(_COARSE))
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: torch.Tensor, at: torch.Tensor, maps: torch.Tensor, shapes: Sequence[Shape]) -> torch.Tensor:
        return tokens + self.gamma * self.attention(self.norm_tokens(tokens), at, self.norm_maps(maps), shapes)


class _Extractor(nn.Module):
    """Equations 2 and 3: the flattened maps (b, Σ h·w, width) attend to the tokens, then each map at its own surroundings.

    The second step is a feed-forward network a quarter as wide, with a depthwise convolution in it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_maps, self.norm_tokens = _layer_norm(width), _layer_norm(width)
        self.attention = _attention(width, 1)
        hidden = max(1, width // 4)
        self.norm = _layer_norm(width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.around = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        for linear in (self.widen, self.narrow):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, maps: torch.Tensor, at: torch.Tensor, tokens: torch.Tensor, grid: Shape, shapes: Sequence[Shape]) -> torch.Tensor:
        maps = maps + self.attention(self.norm_maps(maps), at, self.norm_tokens(tokens), [grid])
        parts = self.widen(self.norm(maps)).split([h * w for h, w in shapes], dim=1)
        hidden = torch.cat([self.around(_map(part, shape)).flatten(2).mT for part, shape in zip(parts, shapes, strict=True)], dim=1)
        out: torch.Tensor = maps + self.narrow(F.gelu(hidden))
        return out


def _attention(width: int, maps: int) -> DeformableAttention:
    inner = width if width <= 384 else width // 2
    heads = next(heads for heads in range(max(1, width // 64), 0, -1) if inner % heads == 0)
    return DeformableAttention(width, heads=heads, maps=maps, inner=inner)


def _map(tokens: torch.Tensor, shape: Shape) -> torch.Tensor:
    """(b, h·w, c) to (b, c, h, w)."""
    return tokens.mT.unflatten(2, shape)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, _group_norm(outputs), nn.ReLU())


def _layer_norm(width: int) -> nn.LayerNorm:
    """With the authors' ε of 10⁻⁶. It was 10⁻⁵ once; it is not a parameter, so segmenters trained with that load as they are."""
    return nn.LayerNorm(width, eps=1e-6)


def _group_norm(width: int) -> nn.GroupNorm:
    """32 groups, as in Wu & He, ECCV 2018, or as many as the width allows."""
    return nn.GroupNorm(math.gcd(32, width), width)
