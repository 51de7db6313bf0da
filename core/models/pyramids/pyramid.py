"""Backbones that are trained: from images to feature maps at strides 4, 8, 16 and 32.

A dense predictor (a segmenter) stands on a ``Pyramid`` and need not know what is inside: a plain vision transformer with an
adapter (``vit_adapter``), a network of timm that has these strides by itself (``convolutional``), or the built-in
network (``builtin.pyramid``). ``registry.build_pyramid`` makes one from a model's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ovskit.core.models.backbones.interface import check_images
from ovskit.core.runtime.errors import UsageError

STRIDES = (4, 8, 16, 32)
Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Channels = tuple[int, int, int, int]


class Pyramid(nn.Module):
    """The base of every trainable backbone.

    ``name`` is the model's name as typed, ``channels`` are the widths of the maps at ``STRIDES``. ``trunk`` is the network
    that was there before: the one that ``freeze`` freezes, and whose weights a file brings. ``mean`` and ``std`` are those of
    its training images, of values from 0 to 1. A subclass computes ``_maps`` and says in which order its parameters come.
    """

    name: str
    channels: Channels
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, name: str, trunk: nn.Module, channels: Channels, mean: Iterable[float], std: Iterable[float], *, freeze: bool
    ) -> None:
        super().__init__()
        self.name, self.channels, self.frozen = name, channels, freeze
        self.trunk = trunk
        # Not in the state dict: they belong to the architecture, as the code does.
        self.register_buffer("mean", 255 * torch.tensor(tuple(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(tuple(std)).view(1, 3, 1, 1), persistent=False)
        if freeze:
            trunk.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> Maps:
        """The maps (b, channels[k], H / STRIDES[k], W / STRIDES[k]) of RGB images (b, 3, H, W), uint8 or floating point from 0 to 255.

        The maps are float32, but under autocast may be of its type. Raises UsageError for images of other values, such as those
        from 0 to 1 or normalised before, and ValueError if H or W is not a positive multiple of 32.
        """
        return self._maps(self._normalised(images))

    def grouped(self, images: torch.Tensor) -> tuple[Maps, torch.Tensor]:
        """The maps, and vectors (b, g, H / 4, W / 4) of length 1, float32, whose products say how much two places belong together.

        The first map may be another one than without them. Only for pyramids that ``registry.build_pyramid`` made with ``grouping``;
        raises what ``forward`` raises.
        """
        return self._grouped(self._normalised(images))

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        _check_values(images, self.name)
        height, width = images.shape[2:]
        if min(height, width) < STRIDES[-1] or height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(f"size {height}×{width}: {self.name} needs multiples of {STRIDES[-1]}")
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def train(self, mode: bool = True) -> Pyramid:
        """As ``Module.train``, but a frozen trunk stays in evaluation mode: no dropout in it, and its statistics stay as they are."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def config(self) -> dict[str, Any]:
        """JSON values that, beside the name, decide the architecture: what makes it again without ``weights``."""
        return {}

    def depth_groups(self) -> list[list[nn.Parameter]]:
        """All parameters that require gradients, each once, in groups from the input outwards.

        They are for learning rates that fall from layer to layer towards the input; a group is about a block, and what has
        not been trained before is in the last. Empty if nothing is to be trained.
        """
        groups = [[parameter for parameter in group if parameter.requires_grad] for group in self._depth_groups()]
        return [group for group in groups if group]

    def _maps(self, images: torch.Tensor) -> Maps:
        """The maps of normalised images."""
        raise NotImplementedError

    def _grouped(self, images: torch.Tensor) -> tuple[Maps, torch.Tensor]:
        """The maps and the vectors of grouping of normalised images."""
        raise NotImplementedError

    def _depth_groups(self) -> Iterator[list[nn.Parameter]]:
        """See ``depth_groups``; frozen parameters may be among them."""
        raise NotImplementedError


def _check_values(images: torch.Tensor, name: str) -> None:
    if not images.is_floating_point():
        check_images(images, name)
    elif images.numel():  # looking at values waits for a GPU; recipes and predictions hand over uint8
        low, high = (float(value) for value in images.detach().aminmax())
        if low < 0 or high > 255 or 0 < high <= 1:
            raise UsageError(f"{name} takes images of values from 0 to 255, and normalises them itself; these are {low:g} to {high:g}")


def run_block(block: Callable[..., torch.Tensor], *inputs: Any, checkpointing: bool, norms: nn.Module | None = None) -> torch.Tensor:
    """``block(*inputs)``; with ``checkpointing``, what it computes inside is computed again when gradients are wanted.

    Batch normalisation in ``norms`` counts the images once all the same.
    """
    if not checkpointing or not torch.is_grad_enabled():
        return block(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return contextlib.nullcontext(), contextlib.nullcontext() if norms is None else _without_counting(norms)

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _without_counting(network: nn.Module) -> Iterator[None]:
    norms = [each for each in network.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
